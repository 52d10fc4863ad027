// System tools that the tests use, and the Debian packages that have them. Missing ones are installed with
// apt-get where that is possible; where not, the tests fail and say what to install.
import { execFileSync } from 'node:child_process';
import { accessSync, constants, globSync } from 'node:fs';

const TOOLS: Readonly<Record<string, string>> = {
  nbdkit: 'nbdkit',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdfuse: 'nbdfuse',
  clamscan: 'clamav',
  fusermount3: 'fuse3',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  fio: 'fio',
  'mkfs.ext4': 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
  xfs_repair: 'xfsprogs',
  'mkfs.btrfs': 'btrfs-progs',
  'mkfs.vfat': 'dosfstools',
  'fsck.vfat': 'dosfstools',
  mcopy: 'mtools',
  mkntfs: 'ntfs-3g',
  sfdisk: 'fdisk',
  '7zz': '7zip',
  unshare: 'util-linux',
  losetup: 'mount',
  'nats-server': 'nats-server',
  curl: 'curl',
  script: 'bsdutils',
  zstd: 'zstd',
  age: 'age',
  'age-keygen': 'age',
  openssl: 'openssl',
  prometheus: 'prometheus',
  promtool: 'prometheus',
  radosgw: 'radosgw',
  'ceph-mon': 'ceph-mon',
  'ceph-osd': 'ceph-osd',
  ceph: 'ceph-common',
};
/** Debian keeps them out of the path. */
const POSTGRES = '/usr/lib/postgresql/*/bin/initdb';
const PYTHON = '/usr/bin/python3';
const PYTHON_MODULE_PACKAGE = 'python3-libnbd';
const FOLDERS = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

function found(tool: string): boolean {
  return FOLDERS.some((folder) => {
    try {
      accessSync(`${folder}/${tool}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function pythonHasNbd(): boolean {
  try {
    execFileSync(PYTHON, ['-c', 'import nbd'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function missingPackages(): string[] {
  const missing = new Set<string>();
  for (const [tool, name] of Object.entries(TOOLS)) if (!found(tool)) missing.add(name);
  if (globSync(POSTGRES).length === 0 && !found('initdb')) missing.add('postgresql');
  if (!pythonHasNbd()) missing.add(PYTHON_MODULE_PACKAGE);
  return [...missing];
}

/** Throws naming the packages when they are missing and can't be installed. */
export function installTools(): void {
  const missing = missingPackages();
  if (missing.length === 0) return;
  const root = process.getuid?.() === 0;
  const command = `apt-get install -y ${missing.join(' ')}`;
  if (!found('apt-get') || (!root && !found('sudo')))
    throw new Error(
      `the tests need these packages: ${missing.join(' ')}. On Debian or Ubuntu: sudo ${command}`,
    );
  process.stdout.write(`Installing what the tests need: ${missing.join(' ')}\n`);
  const elevate = root ? [] : ['sudo', '-n'];
  const apt = (...args: string[]): void => {
    const [program, ...rest] = [...elevate, 'apt-get', ...args] as [string, ...string[]];
    execFileSync(program, rest, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    });
  };
  try {
    apt('update', '-q');
    apt('install', '-y', '-q', '--no-install-recommends', ...missing);
  } catch (cause) {
    throw new Error(
      `the tests need these packages and apt-get could not install them: ${missing.join(' ')}. Run: sudo ${command}`,
      { cause },
    );
  }
  const still = missingPackages();
  if (still.length > 0)
    throw new Error(
      `apt-get has installed what it was asked for, and these are still missing: ${still.join(' ')}`,
    );
}

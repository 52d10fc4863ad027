// A mirror, or one partition of it, as a file or a block device of this machine: what programs can open.
import { existsSync, promises as fs } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { BlockDevice } from '@midmirror/block-device';
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { type NbdServer, parseNbdUri, startNbdServer } from '@midmirror/nbd';
import { limits } from '../limits.ts';
import { type Machine, missing, nbdDevices, required } from '../machine.ts';
import { collectErrors, failed, run } from '../programs.ts';
import type { Session } from '../session.ts';
import { DeviceWindow } from './device-window.ts';

export interface DiskPlace {
  session: Session;
  machine: Machine;
  uri: string;
  device: BlockDevice;
  /** Programs may write to it: the export is a clone. */
  writable: boolean;
  /** What a copy must leave free. */
  spareBytesMin: number;
}

/** Null when this machine can do it, else why not. */
export function whyNoFuse(machine: Machine): string | null {
  if (machine.find('nbdfuse') === null) return missing('nbdfuse');
  if (!machine.hasFuse) return '/dev/fuse can not be opened by this user';
  if (!machine.isRoot && machine.find('fusermount3') === null) return missing('fusermount3');
  return null;
}

export function whyNoKernelNbd(machine: Machine): string | null {
  if (!machine.isRoot) return 'it needs root';
  if (machine.find('nbd-client') === null) return missing('nbd-client');
  if (nbdDevices(machine).length > 0 || machine.find('modprobe') !== null) return null;
  return 'the kernel has no nbd module';
}

/** The whole disk by FUSE, from the appliance itself. */
export async function fuseDisk({ session, machine, uri, writable }: DiskPlace): Promise<string> {
  return await fuse(session, machine, 'disk', uri, writable ? [] : ['--readonly']);
}

async function fuse(
  session: Session,
  machine: Machine,
  name: string,
  uri: string,
  options: readonly string[],
): Promise<string> {
  const point = `${session.folder}/${name}`;
  await fs.mkdir(point);
  const server = session.serve(required(machine, 'nbdfuse'), [...options, point, uri]);
  const errors = collectErrors(server);
  const file = `${point}/nbd`;
  let over = false;
  server.on('error', () => (over = true));
  server.on('exit', () => (over = true));
  const deadline = performance.now() + limits.shownMsMax;
  while (!(await isThere(file))) {
    if (over) throw new MidmirrorError('io', failed('nbdfuse', server.exitCode, errors()));
    if (performance.now() > deadline) throw new MidmirrorError('io', 'nbdfuse shows no file');
    await pause(limits.pollMs);
  }
  return file;
}

/** Never at once in this thread: it may be this process that serves what is looked at. */
async function isThere(path: string): Promise<boolean> {
  return await fs.access(path).then(
    () => true,
    () => false,
  );
}

/**
 * The whole disk as a device of the kernel. nbd-client stays in the foreground (the older of its two interfaces to the
 * kernel): the device goes with the process, however that ends.
 */
export async function kernelDisk({ session, machine, uri, writable }: DiskPlace): Promise<string> {
  if (nbdDevices(machine).length === 0) {
    await run(required(machine, 'modprobe'), ['nbd']);
    if (nbdDevices(machine).length === 0) throw new MidmirrorError('io', 'the kernel has no nbd module');
  }
  const { address, exportName } = parseNbdUri(uri);
  const where = 'path' in address ? ['-unix', address.path] : [address.host, String(address.port)];
  let last = 'all of its devices are taken';
  for (const name of nbdDevices(machine)) {
    if (isTaken(machine, name)) continue;
    const device = `${machine.deviceFolder}/${name}`;
    await session.recordDevice(device);
    const args = [...where, device, '-name', exportName, '-nonetlink', '-nofork', '-block-size', '512'];
    const client = session.serve(required(machine, 'nbd-client'), [
      ...args,
      ...(writable ? [] : ['-readonly']),
    ]);
    const errors = collectErrors(client);
    let over = false;
    client.on('error', () => (over = true));
    client.on('exit', () => (over = true));
    const deadline = performance.now() + limits.shownMsMax;
    while (!over && !(isTaken(machine, name) && (await sectors(machine, name)) > 0)) {
      if (performance.now() > deadline) {
        client.kill('SIGKILL');
        throw new MidmirrorError('io', 'nbd-client shows no device');
      }
      await pause(limits.pollMs);
    }
    if (!over) return device;
    // Perhaps another process has taken it in this moment; the next one is free then.
    last = failed('nbd-client', client.exitCode, errors());
  }
  throw new MidmirrorError('io', last);
}

function isTaken({ blockFolder }: Machine, name: string): boolean {
  return existsSync(`${blockFolder}/${name}/pid`);
}

async function sectors({ blockFolder }: Machine, name: string): Promise<number> {
  return Number(await fs.readFile(`${blockFolder}/${name}/size`, 'utf8').catch(() => '0'));
}

/** Who reads a hostile disk in root's place: `nobody`. */
const NOBODY = 65_534;

/** A partition as an open file that begins with it, for programs that read it in our place. */
export interface PartFile {
  disk: number;
  /** Who reads it; null: this user. */
  user: number | null;
  /** The file. What it is on goes with the session. */
  closeFile(): Promise<void>;
  /** After that. */
  closeServer(): Promise<void>;
}

export interface PartOfDisk {
  startBytes: number;
  sizeBytes: number;
}

export function readerUser({ isRoot }: Machine): number | null {
  return isRoot ? NOBODY : null;
}

/** By FUSE where that may be used, else copied. */
export async function partFile(place: DiskPlace, { startBytes, sizeBytes }: PartOfDisk): Promise<PartFile> {
  const { session, machine, device, uri } = place;
  const user = readerUser(machine);
  const opened = async (path: string, closeServer: () => Promise<void>): Promise<PartFile> => {
    const file = await fs.open(path, 'r');
    return { disk: file.fd, user, closeFile: () => file.close(), closeServer };
  };
  const name = `part-${startBytes}`;
  if (whyNoFuse(machine) !== null) {
    return await opened(await partCopy(place, { startBytes, sizeBytes }), async () => {});
  }
  // Nobody else may read it, though FUSE lets others in then: the file is theirs alone, and its rights are asked for.
  const rights = ['allow_other', 'default_permissions', `uid=${user}`, `gid=${user}`, 'umask=0277'];
  const forUser = user === null ? [] : rights.flatMap((right) => ['-o', right]);
  const options = ['--readonly', ...forUser];
  if (startBytes === 0 && sizeBytes === device.sizeBytes)
    return await opened(await fuse(session, machine, name, uri, options), async () => {});
  const socket = `${session.folder}/${name}.sock`;
  const server = await serveWindow(device, startBytes, sizeBytes, socket);
  const closeServer = (): Promise<void> => server.close(0);
  try {
    const path = await fuse(session, machine, name, `nbd+unix:///?socket=${socket}`, options);
    return await opened(path, closeServer);
  } catch (error) {
    await closeServer();
    throw error;
  }
}

async function serveWindow(
  device: BlockDevice,
  startBytes: number,
  sizeBytes: number,
  socket: string,
): Promise<NbdServer> {
  const window = new DeviceWindow(device, startBytes, sizeBytes);
  const opened = { device: window, description: '', multiConn: true, release: () => {} };
  return await startNbdServer({
    listen: { path: socket },
    directory: { open: async () => opened, list: async () => [] },
  });
}

/** A copy in the session's folder, which that user may read and write. Its path. */
export async function partCopy(place: DiskPlace, { startBytes, sizeBytes }: PartOfDisk): Promise<string> {
  const { session, machine } = place;
  const path = `${session.folder}/part-${startBytes}.img`;
  // One that could not be made to its end.
  await fs.rm(path, { force: true });
  await copyPart(place, { startBytes, sizeBytes }, path);
  const user = readerUser(machine);
  if (user !== null) await fs.chown(path, user, user);
  return path;
}

/** Without what is empty. Refused when it would not fit. */
async function copyPart(
  { device, spareBytesMin }: DiskPlace,
  { startBytes, sizeBytes }: PartOfDisk,
  path: string,
): Promise<void> {
  let bytes = 0;
  for await (const { length } of dataOf(device, startBytes, sizeBytes)) bytes += length;
  const file = await fs.open(path, 'wx', 0o600);
  try {
    const { bavail, bsize } = await fs.statfs(path);
    if (bytes + spareBytesMin > bavail * bsize)
      throw new MidmirrorError(
        'no-space',
        `${printBytes(bytes)} of the disk would have to be copied to ${path}, where ${printBytes(bavail * bsize)} are free and ${printBytes(spareBytesMin)} stay so`,
        {
          hint: "a file system that can't be mounted is read from a copy where there is no FUSE, or its journal is to be replayed",
        },
      );
    await file.truncate(sizeBytes);
    const buffer = Buffer.allocUnsafe(limits.readBytes);
    for await (const { at, length } of dataOf(device, startBytes, sizeBytes))
      for (let done = 0; done < length; done += limits.readBytes) {
        const count = Math.min(limits.readBytes, length - done);
        await device.read(at + done, count, buffer, 0);
        // A disk that is full takes a part.
        for (let from = 0; from < count; )
          from += (await file.write(buffer, from, count - from, at + done + from - startBytes)).bytesWritten;
      }
  } finally {
    await file.close();
  }
}

async function* dataOf(
  device: BlockDevice,
  startBytes: number,
  sizeBytes: number,
): AsyncGenerator<{ at: number; length: number }> {
  const end = startBytes + sizeBytes;
  for (let at = startBytes; at < end; ) {
    for (const { lengthBytes, hole } of await device.allocation(at, Math.min(end - at, 1 << 30), 1024)) {
      const length = Math.min(lengthBytes, end - at);
      if (!hole && length > 0) yield { at, length };
      at += length;
    }
  }
}

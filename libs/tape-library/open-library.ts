// Opens the library that an address names: `file:///path`, `s3://bucket/prefix`, `tape:///dev/nst0?changer=/dev/sg3`.
import { MidmirrorError, parseBytes } from '@midmirror/basis';
import { cartridgeLibrary, type LibraryOptions } from './cartridge-library.ts';
import { type DriveOptions, openDriveMedia } from './drive/drive-media.ts';
import { openDirectoryShelf, type DirectoryOptions } from './shelf/directory-shelf.ts';
import type { S3Options } from './shelf/s3-shelf.ts';
import { shelfMedia } from './shelf/shelf-media.ts';
import type { TapeLibrary } from './tape-library.ts';

export interface OpenOptions extends LibraryOptions {
  /** For `file:`. */
  readonly directory?: DirectoryOptions;
  /** For `s3:`: what the address does not say. */
  readonly s3?: Partial<Pick<S3Options, 'credentials' | 'endpoint' | 'region' | 'requestMsMax'>>;
  /** For `tape:`: where the library remembers what is on cartridges that are not in the drive, and its lease. */
  readonly stateDirectory?: string;
  /** For `tape:`: other programs and another way to the device. */
  readonly drive?: Pick<DriveOptions, 'commands' | 'openTape'>;
}

const EXAMPLES = 'write file:///path, s3://bucket/prefix or tape:///dev/nst0?changer=/dev/sg3';

/** Rejects with `bad-request` when the address is none, with `not-found` or `unavailable` when it is not there. */
export async function openLibrary(address: string, options: OpenOptions = {}): Promise<TapeLibrary> {
  const url = parseAddress(address);
  if (url.protocol === 'file:') {
    allow(url, []);
    const path = pathOf(url);
    return cartridgeLibrary(shelfMedia(await openDirectoryShelf(path, options.directory)), options);
  }
  if (url.protocol === 's3:') {
    const s3 = s3Options(url, options);
    // Loaded for who needs it: the client of S3 is larger than all the rest.
    const { openS3Shelf } = await import('./shelf/s3-shelf.ts');
    return cartridgeLibrary(shelfMedia(await openS3Shelf(s3)), options);
  }
  return cartridgeLibrary(await openDriveMedia(driveOptions(url, options)), options);
}

function parseAddress(address: string): URL {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw bad(address, 'it is no address');
  }
  if (!['file:', 's3:', 'tape:'].includes(url.protocol)) throw bad(address, `${url.protocol} is not known`);
  if (url.username !== '' || url.password !== '')
    throw new MidmirrorError('bad-request', `the address of a tape library has no user and password`, {
      hint: 'give keys by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)',
    });
  if (url.protocol !== 's3:' && url.host !== '') throw bad(address, 'three slashes come before the path');
  return url;
}

function s3Options(url: URL, options: OpenOptions): S3Options {
  allow(url, ['endpoint', 'region', 'retain-days', 'retain-mode']);
  if (url.hostname === '') throw bad(url.href, 'it names no bucket');
  const prefix = decodeURIComponent(url.pathname).replace(/^\/+|\/+$/g, '');
  const given = (name: string): string | undefined => url.searchParams.get(name) ?? undefined;
  const endpoint = given('endpoint') ?? options.s3?.endpoint;
  const region = given('region') ?? options.s3?.region;
  const days = given('retain-days');
  const mode = given('retain-mode')?.toUpperCase();
  if (days !== undefined && !/^[1-9]\d{0,4}$/.test(days))
    throw bad(url.href, `retain-days=${days} is no whole number of days`);
  if (mode !== undefined && mode !== 'GOVERNANCE' && mode !== 'COMPLIANCE')
    throw bad(url.href, `retain-mode=${mode} is neither governance nor compliance`);
  return {
    bucket: url.hostname,
    prefix,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
    ...(days === undefined ? {} : { retainDays: Number(days) }),
    ...(mode === undefined ? {} : { retainMode: mode }),
    ...(options.s3?.credentials === undefined ? {} : { credentials: options.s3.credentials }),
    ...(options.nowMs === undefined ? {} : { nowMs: options.nowMs }),
    ...(options.s3?.requestMsMax === undefined ? {} : { requestMsMax: options.s3.requestMsMax }),
  };
}

function driveOptions(url: URL, options: OpenOptions): DriveOptions {
  allow(url, ['changer', 'drive', 'capacity', 'state']);
  const changer = url.searchParams.get('changer');
  const drive = url.searchParams.get('drive') ?? '0';
  if (!/^\d{1,3}$/.test(drive)) throw bad(url.href, `drive=${drive} is no number of a drive`);
  const stateDirectory = url.searchParams.get('state') ?? options.stateDirectory;
  if (stateDirectory === undefined)
    throw new MidmirrorError('bad-request', `the tape library ${url.href} needs a directory of its own`, {
      hint: 'add ?state=/var/lib/midmirror/tape: what is on which tape is remembered there, and who uses the drive',
    });
  const capacity = url.searchParams.get('capacity');
  return {
    url: `tape://${url.pathname}`,
    device: pathOf(url),
    changer,
    driveNumber: Number(drive),
    stateDirectory,
    ...(capacity === null ? {} : { capacityBytes: parseBytes(capacity, `capacity of ${url.href}`) }),
    ...options.drive,
  };
}

function pathOf(url: URL): string {
  const path = decodeURIComponent(url.pathname).replace(/\/+$/, '');
  if (path === '') throw bad(url.href, 'it names no path');
  return path;
}

function allow(url: URL, names: readonly string[]): void {
  for (const name of url.searchParams.keys())
    if (!names.includes(name))
      throw bad(
        url.href,
        `?${name}= is not known here${names.length === 0 ? '' : `; known are ${names.join(', ')}`}`,
      );
}

function bad(address: string, why: string): MidmirrorError {
  return new MidmirrorError('bad-request', `"${address}" names no tape library: ${why}`, { hint: EXAMPLES });
}

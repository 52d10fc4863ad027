// `db@mark:before-upgrade:/etc/hosts`: a volume, a point and a path; `trial:/etc/hosts`: a clone and a path. Without a
// path the disk is meant.
import { MidmirrorError } from '@midmirror/basis';

export interface FilePlace {
  text: string;
  name: string;
  point: string | null;
  path: string | null;
}

/** The path begins at the first `:/`; points have colons, and none with a slash behind it. */
export function parseFilePlace(text: string): FilePlace {
  const at = text.indexOf(':/');
  const disk = at === -1 ? text : text.slice(0, at);
  const path = at === -1 ? null : text.slice(at + 1);
  const [name, point] = disk.includes('@')
    ? [disk.slice(0, disk.indexOf('@')), disk.slice(disk.indexOf('@') + 1)]
    : [disk, null];
  const bare = /^(?:latest|-\d+[smhd]|(?:seq|snap):[^:]+):(.+)$/.exec(point ?? '');
  if (bare !== null)
    throw new MidmirrorError('bad-request', `"${text}": the path ${bare[1]} does not begin with /`, {
      hint: 'write it from the root of the file system on, such as db@latest:/var/log',
    });
  if (name === '' || point === '' || name.includes(':') || name.includes('/'))
    throw new MidmirrorError('bad-request', `"${text}" does not name files of a volume`, {
      hint: 'write it as <volume>@<point>:/path, such as db@-5m:/var/log, or <clone>:/path',
    });
  return { text, name, point, path };
}

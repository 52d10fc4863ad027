// Names of archives and their members. They are made of checked parts only, so none can point out of a folder.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';

export const MANIFEST_MEMBER = 'manifest.json';
export const CHECKSUMS_MEMBER = 'checksums.json';

const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const ARCHIVE_ID = new RegExp(`^[a-z0-9][a-z0-9-]{0,${limits.archiveIdCharactersMax - 1}}$`);
const ARCHIVE_NAME = /^([A-Za-z0-9][A-Za-z0-9._-]{0,62})-(\d{8}T\d{6}Z)-([a-z0-9][a-z0-9-]{0,35})$/;
const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?Z$/;

export const isVolumeName = (text: string): boolean => VOLUME_NAME.test(text);
export const isArchiveId = (text: string): boolean => ARCHIVE_ID.test(text);
/** RFC 3339 in UTC, a day and time that exist. */
export const isTime = (text: string): boolean => TIME.test(text) && isRealTime(text.slice(0, 19));
/** `id`: what the name has to end with. */
export const isArchiveName = (name: string, id: string): boolean =>
  ARCHIVE_NAME.test(name) && isArchiveId(id) && name.endsWith(`Z-${id}`);

/** `<volume>-<YYYYMMDDTHHMMSSZ>-<archive id>`, the time being that of the point. */
export function archiveName(volumeName: string, pointTime: string, archiveId: string): string {
  if (!isVolumeName(volumeName))
    throw new MidmirrorError('bad-request', `"${volumeName}" is not the name of a volume`);
  if (!isTime(pointTime))
    throw new MidmirrorError('bad-request', `"${pointTime}" is not a time like 2026-11-27T10:00:00Z`);
  if (!isArchiveId(archiveId))
    throw new MidmirrorError('bad-request', `"${archiveId}" is not an archive's id`, {
      hint: `lower-case letters, digits and dashes, at most ${limits.archiveIdCharactersMax}`,
    });
  return `${volumeName}-${pointTime.slice(0, 19).replaceAll(/[-:]/g, '')}Z-${archiveId}`;
}

export const dataMember = (archive: string): string => `${archive}.qcow2`;

function isRealTime(seconds: string): boolean {
  const time = new Date(`${seconds}Z`);
  return !Number.isNaN(time.getTime()) && time.toISOString().slice(0, 19) === seconds;
}

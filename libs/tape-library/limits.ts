// Limits of tape libraries, units in names.

/** A block of a tape; parts on a drive are padded to it. Other media take writes of any size. */
export const BLOCK_BYTES = 256 * 1024;
/** What is read at once, and the longest piece that is given to a medium at once. */
export const PIECE_BYTES_MAX = 1024 * 1024;
/** Label of a part or a cartridge as JSON. Kept free on a cartridge for the label of the part that fills it. */
export const LABEL_BYTES_MAX = 16 * 1024;
/** A cartridge with less room than this gets no new part. */
export const ROOM_BYTES_MIN = 64 * 1024;
export const CARTRIDGE_BYTES_MIN = LABEL_BYTES_MAX + ROOM_BYTES_MIN;
export const CARTRIDGES_MAX = 10_000;
export const PARTS_ON_CARTRIDGE_MAX = 100_000;
export const PARTS_OF_ARCHIVE_MAX = 10_000;
export const NAME_CHARACTERS_MAX = 200;
export const NOTES_MAX = 32;
export const LAYERS_MAX = 8;
/** Written before a sync to a disk begins, and once more while it runs, so that the last sync is short. */
export const UNSYNCED_BYTES_MAX = 64 * 1024 * 1024;

export const LEASE_MS_DEFAULT = 30_000;
/** A lease is renewed after this share of it. */
export const LEASE_RENEWED_AFTER_SHARE = 1 / 3;
/** A writer stops this share before the end, as its clock and that of the others may differ. */
export const LEASE_MARGIN_SHARE = 1 / 6;

/** S3: parts of a multipart upload; at most 10,000 of them. */
export const UPLOAD_PART_BYTES_MIN = 8 * 1024 * 1024;
export const UPLOAD_PARTS_MAX = 10_000;
export const REQUESTS_AT_ONCE = 8;
export const REQUEST_MS_MAX = 60_000;

/** mt and mtx: winding a whole tape takes minutes. */
export const COMMAND_MS_MAX = 20 * 60_000;

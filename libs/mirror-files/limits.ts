// Bounds of what is read off a disk that anybody may have written, and of the programs that help.

export const limits = {
  /** Of one path, and how deep a tree may be: images can link a folder into itself. */
  pathBytesMax: 4096,
  depthMax: 256,
  /** Symbolic links followed on the way to one file, as Linux has it. */
  linksFollowedMax: 40,
  linkBytesMax: 4096,
  /** One read of a file or of a disk. */
  readBytes: 1 << 20,
  /** GPT entries, logical partitions of an MBR. */
  partitionsMax: 1024,
  logicalPartitionsMax: 128,
  /** Where in a file system its superblock can be: the farthest is that of btrfs. */
  superblockBytes: 68 << 10,
  /** A program that answers at once, or never. */
  programMsMax: 60_000,
  /** A file that is read to its end by a program may be large; it is given up after so long without a byte. */
  silentMsMax: 120_000,
  errorBytesMax: 8192,
  /** Address space of a program that reads a disk in our place. */
  readerBytesMax: 2 ** 32,
  /** What one listing of a program may print. */
  listingBytesMax: 256 << 20,
  /** Files of an image that 7z can list: they are held in memory. */
  indexEntriesMax: 1_000_000,
  /** Folders of which debugfs's listing is kept. */
  foldersKeptMax: 64,
  inodesAtOnceMax: 500,
  /** Read by one debugfs when a folder's files are read in their order. */
  smallFileBytesMax: 1 << 20,
  smallFilesAtOnceMax: 500,
  smallFilesBytesMax: 16 << 20,
  inodesKeptMax: 20_000,
  /** Names for a new session, should one be taken. */
  beginTriesMax: 5,
  /** Until a server shows its device. */
  shownMsMax: 15_000,
  /** How long a program may keep a mount from being undone; then it is taken out of sight. */
  unmountMsMax: 3000,
  /** Until a server has ended; it is killed after a quarter of it. */
  endedMsMax: 20_000,
  pollMs: 20,
  /**
   * Calls of the file system on mounted mirrors at one time, in this process. They wait in Node's threads, of which
   * there are 4 unless told otherwise: an appliance that looked at its own mirror with all of them could not answer.
   */
  fileCallsMax: 2,
  /** What a copied disk must leave free. */
  spareBytesMin: 64 << 20,
  /** Names of files that a copy left out or failed at which are told; all are counted. */
  copyReasonsMax: 1000,
} as const;

// Bounds of the synchronizer, each with its unit.

export const limits = {
  /** Memory of the VRMOs that are kept between syncs, of all volumes together: some 400,000 saved extents. */
  newestVrmosBytesMax: 16 << 20,
  /** How long readers may leave a request unanswered, unless told otherwise. */
  leaseMsDefault: 5000,
  /** Of the ring's bytes, how many are in use when the synchronizer relieves it unasked, and how many it leaves. */
  pressedShare: 0.75,
  relievedShare: 0.5,
  /** Volumes whose unfinished work is taken up at the same time after a start. */
  volumesBegunAtOnce: 8,
} as const;

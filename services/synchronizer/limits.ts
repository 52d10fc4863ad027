// Bounds of the synchronizer, each with its unit.

export const limits = {
  /** Memory of the VRMOs that are kept between syncs, of all volumes together: some 400,000 saved extents. */
  newestVrmosBytesMax: 16 << 20,
} as const;

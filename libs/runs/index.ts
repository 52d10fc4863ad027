export { PageCache } from './page-cache.ts';
export { RunLayers } from './run-layers.ts';
export { nextMerge, TIER_WIDTH, tierRunOf, type TierRun } from './tiers.ts';

export { keptSnapshots, type RetentionCandidate } from './retention.ts';
export { defaultPolicy, parsePolicy, type VolumePolicy } from './volume-policy.ts';

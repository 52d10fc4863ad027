export type { Mode } from './core/modes.ts';
export type { MarkPoint } from './core/ports.ts';
export { limits as replicatorLimits } from './limits.ts';
export { observeReplicator } from './observe.ts';
export { defaultApi, type Replicator, type ReplicatorOptions, startReplicator } from './replicator.ts';
export type { ReplicatorStatus } from './status.ts';
export { type ControlOptions, type ControlServer, startControlServer } from './control/control-server.ts';
export { type HeldPrimary, heldPoint, holdPrimary } from './edges/restored-primary.ts';

// What the replicator is about, and what leads from one to the next. Everything else asks the mode.
//
//   connecting    there is no connection, or it is being looked at. Nothing is fed: what guests write is behind.
//                   connected, something behind                  → opening-gap
//                   connected, nothing behind, a gap open there  → closing-gap
//                   connected, nothing behind                    → replicating
//   overrun       the queue was full, or a write failed: nothing more is fed, what is queued drains.
//                   drained                                      → opening-gap
//   opening-gap   the queue is empty; the appliance is asked to note that moments will be missing. Nothing is fed.
//                   gap-opened                                   → catching-up
//   catching-up   clean regions are fed, those behind are copied, out of the order of the writes.
//                   caught-up                                    → closing-gap
//   closing-gap   all is fed, in order; what was copied becomes durable there, then the gap is closed.
//                   overflow                                     → overrun
//                   gap-closed                                   → replicating
//   replicating   all is fed, in order: every moment of the primary is one of the appliance's.
//                   overflow                                     → overrun
//   stopped       nothing is done any more.
//
//   lost leads from any but stopped to connecting, stop from any to stopped.

export type Mode =
  | 'connecting'
  | 'overrun'
  | 'opening-gap'
  | 'catching-up'
  | 'closing-gap'
  | 'replicating'
  | 'stopped';

export type ModeInput =
  | { kind: 'connected'; behind: boolean; gapOpen: boolean }
  | { kind: 'lost' | 'overflow' | 'drained' | 'gap-opened' | 'caught-up' | 'gap-closed' | 'stop' };

/** What entering a mode asks for. */
export type ModeEffect = 'connect' | 'drain' | 'open-gap' | 'copy' | 'close-gap' | 'rejoice' | 'rest';

const EFFECT_OF: Readonly<Record<Mode, ModeEffect>> = {
  connecting: 'connect',
  overrun: 'drain',
  'opening-gap': 'open-gap',
  'catching-up': 'copy',
  'closing-gap': 'close-gap',
  replicating: 'rejoice',
  stopped: 'rest',
};

/** Null: the input means nothing in this mode. */
export function nextMode(mode: Mode, input: ModeInput): { mode: Mode; effect: ModeEffect } | null {
  const next = follow(mode, input);
  return next === null ? null : { mode: next, effect: EFFECT_OF[next] };
}

function follow(mode: Mode, input: ModeInput): Mode | null {
  if (mode === 'stopped') return null;
  switch (input.kind) {
    case 'stop':
      return 'stopped';
    case 'lost':
      return 'connecting';
    case 'connected':
      if (mode !== 'connecting') return null;
      if (input.behind) return 'opening-gap';
      return input.gapOpen ? 'closing-gap' : 'replicating';
    case 'overflow':
      return mode === 'closing-gap' || mode === 'replicating' ? 'overrun' : null;
    case 'drained':
      return mode === 'overrun' ? 'opening-gap' : null;
    case 'gap-opened':
      return mode === 'opening-gap' ? 'catching-up' : null;
    case 'caught-up':
      return mode === 'catching-up' ? 'closing-gap' : null;
    case 'gap-closed':
      return mode === 'closing-gap' ? 'replicating' : null;
  }
}

/** Guests' writes go into the queue, those to regions behind aside. */
export function feeds(mode: Mode): boolean {
  return mode === 'catching-up' || mode === 'closing-gap' || mode === 'replicating';
}

/** Nothing that a guest has been answered is missing at the appliance or in the queue. */
export function inOrder(mode: Mode): boolean {
  return mode === 'closing-gap' || mode === 'replicating';
}

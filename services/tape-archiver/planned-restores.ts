// Archives that restores have been told to read, and may be reading one after the other for days: retention leaves them.
// In memory only: who restores is not known here, and begins anew when something is gone.
import { limits } from './limits.ts';

export class PlannedRestores {
  readonly #nowMs: () => number;
  /** By volume. */
  readonly #held = new Map<string, { ids: Set<string>; untilMs: number }>();

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  hold(volumeId: string, archives: readonly string[]): void {
    const ids = this.of(volumeId);
    for (const id of archives) ids.add(id);
    this.#held.set(volumeId, { ids, untilMs: this.#nowMs() + limits.restoreHeldMs });
  }

  /** One of its archives is read: what comes after it is wanted still. */
  read(volumeId: string): void {
    this.hold(volumeId, []);
  }

  of(volumeId: string): Set<string> {
    const held = this.#held.get(volumeId);
    if (held === undefined || held.untilMs < this.#nowMs()) return new Set();
    return held.ids;
  }
}

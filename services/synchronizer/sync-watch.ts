// What a volume's syncs took, step by step: durations for metrics, spans for a trace.
import { messageOf } from '@midmirror/basis';
import { Histogram, NO_SPAN, type Span, type Telemetry } from '@midmirror/telemetry';
import type { SyncStep } from './volume-sync.ts';

export class SyncWatch {
  readonly steps = new Map<SyncStep, Histogram>();
  applied = 0;
  failed = 0;
  /** Of the last sync; null: it was applied. */
  error: string | null = null;
  readonly #telemetry: Telemetry;
  readonly #volumeId: string;
  #span: Span = NO_SPAN;
  #sinceMs = 0;

  constructor(volumeId: string, telemetry: Telemetry) {
    this.#volumeId = volumeId;
    this.#telemetry = telemetry;
  }

  /** Of the sync under way; goes along with the events that tell of it. */
  get traceparent(): string | undefined {
    return this.#span.traceparent;
  }

  began(cause: string): void {
    this.#sinceMs = performance.now();
    this.#span = this.#telemetry.startSpan('sync', { 'volume.id': this.#volumeId, cause });
  }

  /** What came after the last step, or the beginning, was this one. */
  reached(step: SyncStep): void {
    const nowMs = performance.now();
    const known = this.steps.get(step);
    const durations = known ?? new Histogram();
    if (known === undefined) this.steps.set(step, durations);
    durations.record((nowMs - this.#sinceMs) / 1000);
    this.#span.child(`sync: ${step}`, {}, this.#sinceMs).end(undefined, nowMs);
    this.#sinceMs = nowMs;
  }

  ended(error?: unknown): void {
    if (error === undefined) this.applied += 1;
    else this.failed += 1;
    this.error = error === undefined ? null : messageOf(error);
    this.#span.end(error);
    this.#span = NO_SPAN;
  }
}

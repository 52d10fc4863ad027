// What /readyz and a metric say of the servers that a process stands on. Whether it is ready without one is a matter of its job: one
// that guests' disks hang on goes on without NATS and PostgreSQL, and must not be cut off from them for it.
import { messageOf } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';
import type { Telemetry } from '@midmirror/telemetry';
import { limits } from './limits.ts';

/** `stops`: it is not ready while the server is away. `goes on`: it is, and warns. */
export type JobWithout = 'stops' | 'goes on';

export interface Servers {
  catalog: Catalog;
  catalogAway: JobWithout;
  /** Null: the bus is no server of its own. */
  bus: Bus | null;
  busAway: JobWithout;
}

export function tellOfServers(telemetry: Telemetry, { catalog, catalogAway, bus, busAway }: Servers): void {
  const tell = (server: 'catalogue' | 'bus', job: JobWithout, look: ServerLook): void => {
    const check = (): Promise<string[]> => look.whyAway();
    if (job === 'stops') telemetry.ready(check);
    else telemetry.warn(check);
    telemetry.observe(async (report) => {
      report('midmirror_server_away', { server }, Math.min(1, (await check()).length));
    });
  };
  const readVolume = (): Promise<unknown> => catalog.db.selectFrom('volume').select('id').limit(1).execute();
  tell('catalogue', catalogAway, new ServerLook("the catalogue can't be read", readVolume));
  if (bus === null) return;
  tell('bus', busAway, new ServerLook('NATS is away', () => bus.lastPosition(Streams.timeline)));
}

/** One question at a time, however often it is looked: it may take long to fail. */
class ServerLook {
  readonly #what: string;
  readonly #ask: () => Promise<unknown>;
  #asking: Promise<string[]> | null = null;
  /** Why the last question failed; empty: it did not. */
  #failed: string[] = [];

  constructor(what: string, ask: () => Promise<unknown>) {
    this.#what = what;
    this.#ask = ask;
  }

  async whyAway(): Promise<string[]> {
    this.#asking ??= this.#whyFailed().finally(() => {
      this.#asking = null;
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string[]>((resolve) => {
      timer = setTimeout(() => resolve(this.#late()), limits.serverAnswerMs);
    });
    const why = await Promise.race([this.#asking, late]);
    clearTimeout(timer);
    return why;
  }

  async #whyFailed(): Promise<string[]> {
    try {
      await this.#ask();
      this.#failed = [];
    } catch (error) {
      this.#failed = [`${this.#what}: ${withoutPasswords(messageOf(error))}`];
    }
    return this.#failed;
  }

  #late(): string[] {
    if (this.#failed.length > 0) return this.#failed;
    return [`${this.#what}: no answer within ${limits.serverAnswerMs} ms`];
  }
}

/** Those that stand in the URL of a server; /readyz has no access control. */
function withoutPasswords(message: string): string {
  return message.replaceAll(/(\/\/|,)[^/\s,@]*@/g, '$1');
}

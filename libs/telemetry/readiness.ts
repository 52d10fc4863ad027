// Asks all checks why the job can't be done, and what is worse than it should be. A check that fails or takes too long
// tells of itself.
import { messageOf } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { Check } from './telemetry.ts';

export interface ReadinessAnswer {
  ready: boolean;
  /** Why it is not ready. */
  reasons: string[];
  /** What does not make it unready. */
  warnings: string[];
}

class Checks {
  readonly #checks: Check[] = [];

  add(check: Check): void {
    this.#checks.push(check);
  }

  async ask(): Promise<string[]> {
    return (await Promise.all(this.#checks.map(inTime))).flat();
  }
}

export class Readiness {
  readonly reasons = new Checks();
  readonly warnings = new Checks();

  async answer(): Promise<ReadinessAnswer> {
    const [reasons, warnings] = await Promise.all([this.reasons.ask(), this.warnings.ask()]);
    return { ready: reasons.length === 0, reasons, warnings };
  }
}

async function inTime(check: Check): Promise<readonly string[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string[]>((resolve) => {
    timer = setTimeout(() => resolve([`a check did not end within ${limits.checkMs} ms`]), limits.checkMs);
  });
  try {
    return await Promise.race([check(), late]);
  } catch (error) {
    return [messageOf(error)];
  } finally {
    clearTimeout(timer);
  }
}

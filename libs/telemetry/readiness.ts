// Asks all checks why the job can't be done. One that fails or takes too long is a reason itself.
import { messageOf } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { Check } from './telemetry.ts';

export class Readiness {
  readonly #checks: Check[] = [];

  add(check: Check): void {
    this.#checks.push(check);
  }

  async reasons(): Promise<string[]> {
    return (await Promise.all(this.#checks.map(inTime))).flat();
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

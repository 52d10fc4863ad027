// What a bench starts is stopped, and what it makes is removed: when its block is left, and when the bench fails somewhere
// else or is interrupted. `await using server = await held(startAppliance(folder.it), (each) => each.stop())`.
import { mkdtempSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { inspect } from 'node:util';
import { ROOT } from '../appliance/appliance-process.ts';

export interface Held<T> extends AsyncDisposable {
  readonly it: T;
}

/** Of all that is held, the latest last. */
const undos: (() => Promise<void>)[] = [];
let watching = false;
let ending = false;

/** It is known before it has started: who is interrupted then waits, and stops it. */
export async function held<T>(starting: Promise<T>, stop: (it: T) => Promise<unknown>): Promise<Held<T>> {
  watch();
  let stopped: Promise<void> | null = null;
  const undo = (): Promise<void> => (stopped ??= stopOnce(starting, stop));
  undos.push(undo);
  try {
    return { it: await starting, [Symbol.asyncDispose]: () => left(undo) };
  } catch (error) {
    await left(undo);
    throw error;
  }
}

/** A new folder, by default where the repository lies. */
export async function benchFolder(prefix = `${ROOT}/.bench-`): Promise<Held<string>> {
  watch();
  return await held(Promise.resolve(mkdtempSync(prefix)), async (folder) => {
    // Programs that were interrupted may not have gone yet.
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });
}

async function stopOnce<T>(starting: Promise<T>, stop: (it: T) => Promise<unknown>): Promise<void> {
  const started = await starting.then(
    (it) => ({ it }),
    () => null, // told where it is waited for
  );
  if (started !== null) await stop(started.it);
}

async function left(undo: () => Promise<void>): Promise<void> {
  // What is still on its way fails as its servers stop; the process ends when all have.
  if (ending) await new Promise(() => {});
  await undo();
  undos.splice(undos.lastIndexOf(undo), 1);
}

function watch(): void {
  if (watching) return;
  watching = true;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => void end(`interrupted by ${signal}`, 128 + constants.signals[signal]));
  for (const event of ['uncaughtException', 'unhandledRejection'] as const)
    process.on(event, (error) => void end(inspect(error), 1));
}

async function end(why: string, status: number): Promise<void> {
  if (ending) return;
  ending = true;
  process.stderr.write(`${why}\n`);
  for (const undo of undos.toReversed())
    await undo().catch((error: unknown) => process.stderr.write(`${inspect(error)}\n`));
  process.exit(status);
}

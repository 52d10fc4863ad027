// Why the console can't do its job: every call needs the catalogue, most need the other services.
import { messageOf } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';

export async function whyNotReady({ catalog, bus }: { catalog: Catalog; bus: Bus }): Promise<string[]> {
  const reasons = await Promise.all([
    failureOf("the catalogue can't be read", () =>
      catalog.db.selectFrom('volume').select('id').limit(1).execute(),
    ),
    failureOf("the other services can't be reached", () => bus.lastPosition(Streams.timeline)),
  ]);
  return reasons.flat();
}

async function failureOf(what: string, act: () => Promise<unknown>): Promise<string[]> {
  return await act().then(
    () => [],
    (error: unknown) => [`${what}: ${messageOf(error)}`],
  );
}

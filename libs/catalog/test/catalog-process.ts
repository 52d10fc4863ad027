// A process of its own that uses a PostgreSQL catalogue: `migrate` opens and closes it; `hold` begins a transaction,
// says so, and goes on with it when it is written to. Prints what came of it.
import { once } from 'node:events';
import { MidmirrorError } from '@midmirror/basis';
import { openPostgresCatalog, unpinPoint } from '../index.ts';

const [what, url] = process.argv.slice(2) as ['migrate' | 'hold', string];
const catalog = await openPostgresCatalog(url, { idleInTransactionMs: 500 });
if (what === 'hold') {
  try {
    await catalog.transaction(async (tx) => {
      await unpinPoint(tx, 'none');
      process.stdout.write('holding\n');
      await once(process.stdin, 'data');
      await unpinPoint(tx, 'none');
    });
    process.stdout.write('committed\n');
  } catch (error) {
    process.stdout.write(`${error instanceof MidmirrorError ? error.code : 'unknown'}: ${String(error)}\n`);
  }
  process.stdin.destroy();
}
await catalog.close();

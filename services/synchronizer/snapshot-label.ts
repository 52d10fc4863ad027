// What an object says of its snapshot beside the numbers, so that the catalogue can be rebuilt (I7): why the
// snapshot is kept, and the marks at its point. JSON, at most 2 KiB.
import type { CatalogReader, SnapshotRow } from '@midmirror/catalog';

const LABEL_BYTES_MAX = 2000;

export async function snapshotLabel(
  db: CatalogReader,
  snapshot: Pick<SnapshotRow, 'volume_id' | 'seq' | 'reason'>,
): Promise<string> {
  const rows = await db
    .selectFrom('mark')
    .select(['name', 'kind'])
    .where('volume_id', '=', snapshot.volume_id)
    .where('seq', '=', snapshot.seq)
    .orderBy('name')
    .execute();
  const reason = snapshot.reason.slice(0, 200);
  let text = JSON.stringify({ reason, marks: [] });
  for (let count = 1; count <= rows.length; count += 1) {
    const longer = JSON.stringify({ reason, marks: rows.slice(0, count) });
    if (Buffer.byteLength(longer) > LABEL_BYTES_MAX) break;
    text = longer;
  }
  return text;
}

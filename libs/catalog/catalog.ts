// The catalogue: what is known of volumes, points, runs and pins, and the events, in one database. A row and the
// event that tells of it commit together. It can be rebuilt from the pool (I7).
import type { Kysely, Transaction } from 'kysely';
import type { CatalogSchema } from './schema.ts';

export type CatalogReader = Kysely<CatalogSchema>;
export type CatalogTransaction = Transaction<CatalogSchema>;

export interface Catalog {
  readonly db: CatalogReader;
  /**
   * Exclusive; commits when `act` resolves, durable then; rolls back when it rejects, or when a statement has failed.
   * `act` may run again after a rollback that the database decided on, and uses nothing but `tx` of the catalogue.
   */
  transaction<T>(act: (tx: CatalogTransaction) => Promise<T>): Promise<T>;
  /** Called after each commit, with the transaction that it ended. */
  onCommit(listener: (tx: CatalogTransaction) => void): void;
  close(): Promise<void>;
}

/** `again`: whether a transaction that failed so is to run once more. */
export function catalogOver(
  db: CatalogReader,
  again: (error: unknown, attempt: number) => boolean = () => false,
): Catalog {
  const listeners: ((tx: CatalogTransaction) => void)[] = [];
  return {
    db,
    async transaction(act) {
      for (let attempt = 1; ; attempt += 1) {
        try {
          const { tx, result } = await db
            .transaction()
            .execute(async (tx) => ({ tx, result: await act(tx) }));
          for (const listener of listeners) listener(tx);
          return result;
        } catch (error) {
          if (!again(error, attempt)) throw error;
        }
      }
    },
    onCommit(listener) {
      listeners.push(listener);
    },
    close: () => db.destroy(),
  };
}

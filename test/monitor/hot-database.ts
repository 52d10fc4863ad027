// A SQLite database in the middle of a large change: pages of it are written over, and what they held is in its journal alone,
// as a cut of the power would leave it.
import { DatabaseSync } from 'node:sqlite';

const ROWS = 4000;

export class HotDatabase {
  readonly #database: DatabaseSync;

  constructor(path: string) {
    this.#database = new DatabaseSync(path);
    this.#database.exec(`
      PRAGMA journal_mode = DELETE;
      PRAGMA cache_size = 8;
      CREATE TABLE item (id INTEGER PRIMARY KEY, price INTEGER NOT NULL, name TEXT NOT NULL);
      CREATE INDEX by_price ON item (price, name);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
      INSERT INTO item SELECT i, 7, 'item ' || i FROM n;
    `);
  }

  /** From here on half of it is on the disk. */
  begin(): void {
    this.#database.exec(`BEGIN; UPDATE item SET price = 1000 + id WHERE id % 2 = 0`);
  }

  end(): void {
    this.#database.exec('ROLLBACK');
    this.#database.close();
  }

  /** What a check of it asserts. */
  static readonly assertion = { name: 'nothing is changed', sql: 'SELECT id FROM item WHERE price <> 7' };
}

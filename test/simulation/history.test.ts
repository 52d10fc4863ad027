// Any crash at any point, on files that forget what was not synced.
import { test } from 'node:test';
import { runAll } from './history-walks.ts';

test('services on files that forget: any crash, any point', () =>
  runAll(32, { steps: 60, realFiles: false }));

test('services with the catalogue on PostgreSQL, on files that forget', () =>
  runAll(10, { steps: 40, realFiles: false, catalog: 'postgres' }));

// The same walks on the machine's files: in a file of its own, so that it runs beside the others.
import { test } from 'node:test';
import { runAll } from './history-walks.ts';

test('services on the real files, with restarts', () => runAll(200, { steps: 15, realFiles: true }));

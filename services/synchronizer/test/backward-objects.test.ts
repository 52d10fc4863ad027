import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNs } from '@midmirror/catalog';
import { ForgetfulFiles } from '@midmirror/pool';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { BackwardObjects, forgetGiven } from '../backward-objects.ts';

const VOLUME = 'v1';
const FOLDER = 'backward';

test('the number of an object that was removed is not given again, also by the next process', () =>
  withCatalog(async (catalog) => {
    const files = new ForgetfulFiles();
    const at = { created_ns: toNs(1n), mim_seq: 0, mim_ns: toNs(1n) };
    const volume = { id: VOLUME, name: 'db', size_bytes: 4096, policy: '{}', state: 'active', ...at };
    await catalog.db.insertInto('volume').values(volume).execute();
    const open = async (): Promise<BackwardObjects> => {
      const objects = new BackwardObjects(VOLUME, FOLDER, files, catalog);
      await objects.begin();
      return objects;
    };
    const first = await open();
    assert.deepEqual([first.takeObject(), first.takeObject(), first.takeObject()], [1, 2, 3]);
    // As a drop does that takes all of them away.
    await catalog.transaction((tx) => first.noteGiven(tx));
    const second = await open();
    assert.equal(second.takeObject(), 4);
    const file = await files.open(`${FOLDER}/00000007.obj`, 'create');
    await file.close();
    const third = await open();
    assert.equal(third.takeObject(), 8, 'nor that of one that was half-made');
    assert.deepEqual(await files.list(FOLDER), []);
    await forgetGiven(catalog.db);
    assert.equal((await open()).takeObject(), 4);
    await catalog.db.deleteFrom('volume').execute();
    await forgetGiven(catalog.db);
    assert.deepEqual(await catalog.db.selectFrom('position').selectAll().execute(), []);
  }));

test('nothing is written before the numbers are known', () =>
  withCatalog(async (catalog) => {
    const objects = new BackwardObjects(VOLUME, FOLDER, new ForgetfulFiles(), catalog);
    assert.throws(() => objects.takeObject(), /before its number was known/);
  }));

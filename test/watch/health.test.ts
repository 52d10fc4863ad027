// Whether the appliance lives, and whether it can do its job, as orchestrators and people ask; and that nothing is
// loaded for it when nobody does.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ApplianceProcess, withAppliance, withFolder } from '../appliance/appliance-process.ts';
import { readyz, WELL } from './readyz.ts';

const WATCHED = { MIM_METRICS_LISTEN: '127.0.0.1:0' };

async function sample({ metrics }: ApplianceProcess, series: string): Promise<number> {
  const text = await (await fetch(`${metrics}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${series} `));
  return Number(line?.split(' ').at(-1));
}

test('a damaged volume makes it not ready and says why; it lives, and serves the others', () =>
  withFolder(async (folder) => {
    let appliance = await ApplianceProcess.start(`${folder}/data`, WATCHED);
    try {
      const { id } = await appliance.post<{ id: string }>('/volumes', { name: 'db', sizeBytes: 1 << 20 });
      await appliance.post('/volumes', { name: 'other', sizeBytes: 1 << 20 });
      assert.deepEqual(await readyz(appliance.metrics), WELL);
      assert.equal(await sample(appliance, 'midmirror_volume_state{volume="db",state="open"}'), 1);
      assert.equal(await appliance.stop(), 0);

      const path = `${folder}/data/pool/volumes/${id}/mim.state`;
      assert.ok(existsSync(path));
      writeFileSync(path, Buffer.alloc(8192));
      appliance = await ApplianceProcess.start(`${folder}/data`, WATCHED);
      const { status, reasons } = await readyz(appliance.metrics);
      assert.equal(status, 503);
      assert.equal(reasons.length, 1);
      assert.match(reasons[0]!, /^volume db can't be opened: .*mim\.state: both slots are damaged/);
      assert.equal((await fetch(`${appliance.metrics}/healthz`)).status, 200);
      const owner = (volume: string): Promise<number> => nodeSample(appliance, volume);
      assert.equal(await owner('db'), 0);
      assert.equal(await owner('other'), 1);
      assert.equal(await sample(appliance, 'midmirror_volume_state{volume="db",state="broken"}'), 1);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

async function nodeSample({ metrics }: ApplianceProcess, volume: string): Promise<number> {
  const text = await (await fetch(`${metrics}/metrics`)).text();
  return Number(
    new RegExp(`^midmirror_volume_owner\\{volume="${volume}",node="[^"]+"\\} (\\d)$`, 'm').exec(text)![1],
  );
}

test('paths that are not there, and methods that change, are refused', () =>
  withAppliance(WATCHED, async ({ metrics }) => {
    assert.equal((await fetch(`${metrics}/nothing`)).status, 404);
    assert.equal((await fetch(`${metrics}/metrics`, { method: 'POST' })).status, 405);
  }));

test('nobody looks: nothing of the SDK is loaded; somebody does: it is', () =>
  withFolder(async (folder) => {
    // Notes each file of the SDK that the process loads.
    const hook = `${folder}/hook.mjs`;
    writeFileSync(
      hook,
      `import { appendFileSync } from 'node:fs';
       import { registerHooks } from 'node:module';
       registerHooks({ load: (url, context, next) => {
         if (url.includes('/@opentelemetry/')) appendFileSync(${JSON.stringify(`${folder}/loaded`)}, url + '\\n');
         return next(url, context);
       } });`,
    );
    const watched = async (env: Record<string, string>): Promise<void> => {
      const appliance = await ApplianceProcess.start(`${folder}/data`, {
        NODE_OPTIONS: `--import=${hook}`,
        ...env,
      });
      assert.equal(await appliance.stop(), 0);
    };
    await watched({});
    assert.ok(!existsSync(`${folder}/loaded`));
    await watched(WATCHED);
    assert.ok(existsSync(`${folder}/loaded`));
  }));

test("from the second start on Node's stripper of types is loaded in no thread", () =>
  withFolder(async (folder) => {
    // Each thread notes at its end whether it has loaded it.
    const hook = `${folder}/hook.mjs`;
    const noted = `${folder}/threads`;
    writeFileSync(
      hook,
      `import { appendFileSync } from 'node:fs';
       process.on('exit', () => {
         const has = process.moduleLoadList.some((name) => name.includes('amaro'));
         appendFileSync(${JSON.stringify(noted)}, has + '\\n');
       });`,
    );
    for (let start = 1; start <= 2; start += 1) {
      rmSync(noted, { force: true });
      const appliance = await ApplianceProcess.start(`${folder}/data`, { NODE_OPTIONS: `--import=${hook}` });
      assert.equal(await appliance.stop(), 0);
    }
    const threads = readFileSync(noted, 'utf8').trim().split('\n');
    assert.ok(threads.length >= 2, 'that of guests and that of the catalogue');
    assert.deepEqual(new Set(threads), new Set(['false']));
  }));

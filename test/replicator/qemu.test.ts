// The recipe of deploy/qemu/README.md, run line by line with a real QEMU while its guest writes: every moment after
// READY is one that the disk had, whatever happens to the appliance, and both end equal.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { freePort } from '@midmirror/local-servers';
import { ApplianceProcess, ROOT, succeed, withFolder } from '../appliance/appliance-process.ts';
import { CountingGuest } from './counting-guest.ts';
import { Qmp } from './qmp.ts';
import { Recipe } from './recipe.ts';

const SIZE = '16M';
const SEED = Number(process.env['FAULT_SEED'] ?? Date.now() % 1_000_000);
/** More than an appliance takes to start on a busy machine. */
const RECONNECT_SECONDS = 12;
const WRITES_AFTER = 40;
const POINTS = 6;
const POLL_MS = 10;
const text = readFileSync(`${ROOT}/deploy/qemu/README.md`, 'utf8');

interface JobState {
  ready: boolean;
  offset: number;
}

/** A volume's host: QEMU with a guest, and an appliance on a port of its own that comes and goes. */
class QemuHost {
  readonly folder: string;
  readonly random = new SeededRandom(SEED);
  readonly guest = new CountingGuest(this.random);
  readonly #ports: { nbd: number; api: number };
  readonly #recipe = new Recipe(text);
  /** What the recipe names, and what it is here. */
  readonly #places: readonly (readonly [string, string])[];
  appliance!: ApplianceProcess;
  qmp!: Qmp;

  private constructor(folder: string, ports: { nbd: number; api: number }, more: [string, string][]) {
    this.folder = folder;
    this.#ports = ports;
    this.#places = [
      ['/srv/', `${folder}/`],
      ['/run/', `${folder}/`],
      ['"host": "appliance"', '"host": "127.0.0.1"'],
      ['"10809"', `"${ports.nbd}"`],
      ['"reconnect-delay": 30', `"reconnect-delay": ${RECONNECT_SECONDS}`],
      ...more,
    ];
  }

  static async start(folder: string, more: [string, string][] = []): Promise<QemuHost> {
    const host = new QemuHost(folder, { nbd: await freePort(), api: await freePort() }, more);
    await host.startAppliance();
    await succeed('truncate', ['-s', SIZE, `${folder}/db.img`]);
    await host.run('The disk');
    host.qmp = await Qmp.connect(`${folder}/db.qmp`);
    await host.guest.connect(host.diskUri);
    await host.guest.write(500);
    return host;
  }

  get diskUri(): string {
    return `nbd+unix:///db?socket=${this.folder}/db.sock`;
  }

  async startAppliance(): Promise<void> {
    this.appliance = await ApplianceProcess.start(`${this.folder}/data`, {
      MIM_NBD_LISTEN: `127.0.0.1:${this.#ports.nbd}`,
      MIM_API_LISTEN: `127.0.0.1:${this.#ports.api}`,
    });
  }

  async killAppliance(): Promise<void> {
    this.appliance.kill();
    await this.appliance.ended;
  }

  /** `but`: another text for one in it. */
  run(section: string, but: readonly [string, string] = ['', '']): Promise<void> {
    const local = (line: string): string =>
      [...this.#places, but].reduce(
        (all, [from, to]) => (from === '' ? all : all.replaceAll(from, to)),
        line,
      );
    return this.#recipe.run(section, local, { MIM_API: this.appliance.api }, this.qmp);
  }

  async job(): Promise<JobState | undefined> {
    return ((await this.qmp.execute('query-block-jobs')) as JobState[])[0];
  }

  /** A mark at this moment holds all that is answered before and nothing submitted after. */
  async checkMark(name: string): Promise<void> {
    const from = this.guest.answered;
    await this.appliance.post('/volumes/db/marks', { name });
    await this.guest.check(this.appliance.uri(`db@mark:${name}`), from, this.guest.submitted);
  }

  /** What QEMU copied meanwhile is refused, and both ends are there. */
  async checkGaps(count: number): Promise<void> {
    const { gaps } = await this.appliance.get<{ gaps: { fromSeq: number; toSeq: number }[] }>(
      '/volumes/db/points',
    );
    assert.equal(gaps.length, count);
    for (const { fromSeq, toSeq } of gaps) {
      const within = fromSeq + 1 + this.random.below(toSeq - fromSeq - 1);
      const refused = await this.appliance.mim('resolve', 'db', '--at', `seq:${within}`);
      assert.equal(refused.status, 3, refused.stdout);
      for (const seq of [fromSeq, toSeq])
        await this.guest.check(this.appliance.uri(`db@seq:${seq}`), 0, this.guest.submitted);
    }
  }

  /** Any writes from the mark on are moments of the disk. */
  async checkPoints(mark: string): Promise<void> {
    const { seq: first } = await this.appliance.json<{ seq: number }>(
      'resolve',
      'db',
      '--at',
      `mark:${mark}`,
    );
    const { seq: last } = await this.appliance.json<{ seq: number }>('resolve', 'db', '--at', 'latest');
    for (let i = 0; i < POINTS; i += 1) {
      const seq = first + this.random.below(last - first + 1);
      await this.guest.check(this.appliance.uri(`db@seq:${seq}`), 1, this.guest.submitted);
    }
  }

  async checkEqual(): Promise<void> {
    const { answered, submitted } = this.guest;
    assert.equal(answered, submitted);
    await this.guest.check(this.diskUri, answered, answered);
    await this.guest.check(this.appliance.uri('db'), answered, answered);
    await succeed('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', this.diskUri, this.appliance.uri('db')]);
  }

  async untilAnswered(count: number): Promise<void> {
    while (this.guest.answered < count) await pause(POLL_MS);
  }

  async stop(): Promise<void> {
    await this.guest.close().catch(() => {}); // it may have failed already
    this.qmp?.close();
    const pidFile = `${this.folder}/db.pid`;
    if (existsSync(pidFile)) process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL');
    await this.killAppliance();
  }
}

async function withQemu(more: [string, string][], act: (host: QemuHost) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const host = await QemuHost.start(folder, more);
    try {
      await act(host);
    } finally {
      await host.stop();
    }
  });
}

test(`the recipe under a writing guest (seed ${SEED})`, { timeout: 120_000 }, () =>
  withQemu([], async (host) => {
    const { guest } = host;
    let quiet = guest.writeOn();
    await host.run('The copying');
    assert.equal((await host.job())!.ready, true);
    await host.checkGaps(1);
    for (let i = 0; i < 3; i += 1) await host.checkMark(`m${i}`);
    await host.checkPoints('mirrored');
    await quiet();
    await host.checkEqual();

    // Away for less than the delay: the guest waits, and all is as before.
    quiet = guest.writeOn();
    await host.killAppliance();
    await host.startAppliance();
    await host.untilAnswered(guest.answered + WRITES_AFTER);
    assert.equal((await host.job())!.ready, true);
    await host.checkMark('again');
    await host.checkPoints('mirrored');
    await quiet();
    await host.checkEqual();

    // Away for longer: the guest goes on without it, the volume stays at a moment of the disk.
    quiet = guest.writeOn();
    await host.untilAnswered(guest.answered + WRITES_AFTER);
    await host.killAppliance();
    const before = guest.answered;
    await host.run('When the appliance is away');
    await host.untilAnswered(before + WRITES_AFTER);
    await host.startAppliance();
    assert.equal(await host.job(), undefined);
    await host.untilAnswered(guest.answered + WRITES_AFTER);
    const held = await guest.check(host.appliance.uri('db'), before, before + 1);
    await guest.check(host.appliance.uri('db@latest'), held, held);
    await host.checkPoints('mirrored');

    // And again, from the start.
    await host.run('The copying', ['db mirrored', 'db mirrored-2']);
    await host.checkGaps(2);
    await host.checkMark('anew');
    await host.checkPoints('mirrored-2');
    await quiet();
    await host.checkEqual();
    await host.run('The end');
    await guest.write(WRITES_AFTER);
    await guest.check(host.appliance.uri('db'), guest.answered - WRITES_AFTER, guest.answered - WRITES_AFTER);
    await guest.check(host.appliance.uri('db-back'), 1, guest.submitted);
  }),
);

test(`the appliance killed while QEMU copies (seed ${SEED})`, { timeout: 120_000 }, () =>
  // Held back: it is in the middle when it loses the appliance.
  withQemu([['"on-target-error"', '"speed": 1000000, "on-target-error"']], async (host) => {
    const { guest } = host;
    const quiet = guest.writeOn();
    const copied = host.run('The copying');
    while (((await host.job())?.offset ?? 0) === 0) await pause(POLL_MS);
    await host.untilAnswered(guest.answered + WRITES_AFTER);
    await host.killAppliance();
    await host.startAppliance();
    assert.equal((await host.job())!.ready, false);
    await host.qmp.execute('block-job-set-speed', { device: 'db', speed: 0 });
    await copied;
    await host.checkMark('later');
    await host.checkPoints('mirrored');
    await quiet();
    await host.checkEqual();
  }),
);

// Files of a volume's moments, by the command line, for tests. What is mounted lies in the test's own folder.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { type ApplianceProcess, type Ran, run, succeed } from '../appliance/appliance-process.ts';

export class FilesUnderTest {
  readonly appliance: ApplianceProcess;
  readonly folder: string;
  readonly stateDirectory: string;

  constructor(appliance: ApplianceProcess, folder: string) {
    this.appliance = appliance;
    this.folder = folder;
    this.stateDirectory = `${folder}/files`;
  }

  mim(...args: string[]): Promise<Ran> {
    return run(process.execPath, ['services/mim/main.ts', '--api', this.appliance.api, ...args], {
      env: { MIM_FILES_DIR: this.stateDirectory },
    });
  }

  /** Its stdout, as text. */
  async words(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.mim(...args);
    assert.equal(status, 0, `mim ${args.join(' ')}: ${stdout}${stderr}`);
    return Buffer.from(stdout, 'latin1').toString();
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.words('--json', ...args)) as T;
  }

  async fails(status: number, message: RegExp, ...args: string[]): Promise<void> {
    const ran = await this.mim(...args);
    assert.equal(ran.status, status, `mim ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
    assert.match(ran.stderr, message);
  }

  /** A volume with these bytes. */
  async fill(name: string, image: string, sizeBytes: number): Promise<void> {
    await this.appliance.post('/volumes', { name, sizeBytes });
    await this.overwrite(name, image);
  }

  async overwrite(name: string, image: string): Promise<void> {
    await succeed('nbdcopy', ['--flush', image, this.appliance.uri(name)]);
  }

  nothingLeft(): void {
    assert.deepEqual(readdirSync(this.stateDirectory), []);
    assert.ok(
      !readFileSync('/proc/self/mountinfo', 'utf8').includes(this.stateDirectory),
      'no mount is left',
    );
  }
}

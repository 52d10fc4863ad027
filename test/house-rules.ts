// House rules that no linter knows, run with the lint: folders and their READMEs, the direction of imports, names,
// and what must never be committed.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
// With what is new and not yet added, so that it fails before the commit and not after.
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && existsSync(`${root}/${file}`));
const wrong: string[] = [];

const TOP =
  /^(services|libs|deploy|test)\/|^(README\.md|LICENSE|docker-compose\.yml|package(-lock)?\.json|tsconfig\.json|biome\.json)$|^\./;
const SECTIONS = ['Promise', 'Data in, data out', 'Invariants', 'Failure modes', 'Decisions'];
const BANNED_NAMES = /(^|\/)(utils?|helpers?|common|managers?)(\/|\.ts$)/;
const LINES_MAX = 600;

for (const file of files) {
  if (!TOP.test(file))
    wrong.push(`${file}: the top of the repository holds services, libs, deploy, test and README only`);
  if (BANNED_NAMES.test(file)) wrong.push(`${file}: its name says nothing`);
  if (file.endsWith('.ts')) checkSource(file, readFileSync(`${root}/${file}`, 'utf8'));
}
checkReadmes();
checkLock();

function checkSource(file: string, text: string): void {
  const first = text.split('\n')[0]!;
  const needsOpening = !/(^|\/)index\.ts$|\.test\.ts$/.test(file);
  if (needsOpening && !first.startsWith('// '))
    wrong.push(`${file}: opens with one to five lines that say what it is`);
  if (text.split('\n').length > LINES_MAX) wrong.push(`${file}: more than ${LINES_MAX} lines`);
  const own = /^(libs|services)\/([^/]+)\//.exec(file);
  if (own === null) return;
  const [, kind, name] = own;
  const manifest = JSON.parse(readFileSync(`${root}/${kind}/${name}/package.json`, 'utf8')) as {
    dependencies?: Record<string, string>;
  };
  const isTest = file.includes('/test/');
  for (const [, target] of text.matchAll(/(?:from|import\() ?'@midmirror\/([^']+)'/g)) {
    if (target === name) wrong.push(`${file}: imports its own package by name`);
    if (manifest.dependencies?.[`@midmirror/${target}`] === undefined && !isTest)
      wrong.push(`${file}: ${kind}/${name}/package.json does not name @midmirror/${target}`);
    // Only the composition imports services, and the command that runs the host's; no lib does.
    const runs = name === 'appliance' || (name === 'mim' && target === 'replicator');
    if (existsSync(`${root}/services/${target}`) && !runs)
      wrong.push(`${file}: imports the service ${target}`);
  }
  if (kind === 'services' && !/\/main\.ts$/.test(file) && name !== 'mim' && /process\.env/.test(text))
    wrong.push(`${file}: only main.ts sees the environment`);
}

function checkReadmes(): void {
  const folders = new Set(
    files.map((file) => /^(libs|services)\/[^/]+/.exec(file)?.[0]).filter((folder) => folder !== undefined),
  );
  for (const folder of folders) {
    const path = `${root}/${folder}/README.md`;
    if (!existsSync(path)) {
      wrong.push(`${folder}: has no README.md`);
      continue;
    }
    const text = readFileSync(path, 'utf8');
    for (const section of SECTIONS)
      if (!text.includes(`## ${section}\n`)) wrong.push(`${folder}/README.md: lacks "## ${section}"`);
    if (!/^- 20\d\d-\d\d-\d\d: /m.test(text)) wrong.push(`${folder}/README.md: has no dated decision`);
  }
}

/** A lock file that names a registry works only where that registry is reached. */
function checkLock(): void {
  if (/"resolved": "https?:/.test(readFileSync(`${root}/package-lock.json`, 'utf8')))
    wrong.push('package-lock.json: names a registry host');
}

if (wrong.length > 0) {
  process.stderr.write(`${wrong.join('\n')}\n`);
  process.exit(1);
}

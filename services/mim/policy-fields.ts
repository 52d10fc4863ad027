// Fields of a policy as the command line prints and takes them.
import { MidmirrorError } from '@midmirror/basis';

/** As `--set` takes them; what concerns tapes in a group of its own. */
export function printPolicy(policy: Record<string, unknown>): string {
  const lines = (isOfTapes: boolean): string[] =>
    Object.entries(policy)
      .filter(([field]) => field.startsWith('tape') === isOfTapes)
      .map(([field, value]) => `  ${field} = ${Array.isArray(value) ? value.join(',') : String(value)}`);
  return ['Policy', ...lines(false), '', 'Policy for tapes', ...lines(true)].join('\n');
}

const LISTS = /Marks$|Recipients$/;
const NONE_IF_EMPTY = new Set(['syncAt', 'tapeAt', 'tapeLibrary', 'tapeZstdLevel']);

/** `keepDaily=30`, `syncAt=0 3 * * *`, `keepMarks=bookmark,group`; the API checks fields and values. */
export function policyOf(pairs: readonly string[]): Record<string, unknown> {
  const policy: Record<string, unknown> = {};
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at < 1) throw new MidmirrorError('bad-request', `"${pair}" is not field=value`);
    const field = pair.slice(0, at);
    policy[field] = parsedField(field, pair.slice(at + 1));
  }
  return policy;
}

function parsedField(field: string, text: string): unknown {
  if (LISTS.test(field)) return text === '' ? [] : text.split(',').map((item) => item.trim());
  if (NONE_IF_EMPTY.has(field) && (text === 'null' || text === '')) return null;
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

// Patterns of paths in a mirror: `*` and `?` stay within a name, `**` is any folders. One that ends in `**` means all that is
// below.

export interface PathPattern {
  /** Names from the root on. */
  matches(path: readonly string[]): boolean;
  /** Whether anything in this folder, or below it, could match. */
  mayMatchIn(path: readonly string[]): boolean;
}

export function pathPattern(pattern: string): PathPattern {
  const parts = partsOf(pattern).map((part) => (part === '**' ? part : nameMatcher(part)));
  return {
    matches: (path) => isMatch(parts, path),
    mayMatchIn: (path) => mayMatch(parts, path),
  };
}

export function partsOf(pattern: string): string[] {
  return pattern.split('/').filter((part) => part !== '' && part !== '.');
}

/** Of one name. */
export function nameMatcher(part: string): (name: string) => boolean {
  if (!hasWildcard(part)) return (name) => name === part;
  const escaped = part.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  const pattern = new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's');
  return (name) => pattern.test(name);
}

export function hasWildcard(part: string): boolean {
  return /[*?]/.test(part);
}

type Part = '**' | ((name: string) => boolean);

function isMatch(parts: readonly Part[], path: readonly string[]): boolean {
  const [part, ...rest] = parts;
  const [name, ...below] = path;
  if (part === undefined) return name === undefined;
  if (part === '**')
    return rest.length === 0 || isMatch(rest, path) || (name !== undefined && isMatch(parts, below));
  return name !== undefined && part(name) && isMatch(rest, below);
}

function mayMatch(parts: readonly Part[], path: readonly string[]): boolean {
  const [part, ...rest] = parts;
  const [name, ...below] = path;
  if (part === undefined) return false;
  if (name === undefined || part === '**') return true;
  return part(name) && mayMatch(rest, below);
}

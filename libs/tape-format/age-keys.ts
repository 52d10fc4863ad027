// Files of keys as `age-keygen` writes them: one key a line, `#` begins a comment. A secret is never part of an error.
import { MidmirrorError } from '@midmirror/basis';
import { Decrypter, Encrypter } from 'age-encryption';
import { limits } from './limits.ts';

/** Keys to encrypt for (`age1…`). `file`: what errors name. Throws `bad-request` naming the line. */
export function parseRecipients(text: string, file: string): string[] {
  return parseKeys(text, file, 'a recipient (age1…)', (key) => new Encrypter().addRecipient(key));
}

/** Keys to decrypt with (`AGE-SECRET-KEY-…`). Throws `bad-request` naming the line. */
export function parseIdentities(text: string, file: string): string[] {
  return parseKeys(text, file, 'an identity (AGE-SECRET-KEY-…)', (key) => new Decrypter().addIdentity(key));
}

function parseKeys(text: string, file: string, expected: string, check: (key: string) => void): string[] {
  const bad = (problem: string): never => {
    throw new MidmirrorError('bad-request', `${file}: ${problem}`, {
      hint: 'age-keygen makes such files: the identity in it, the recipient as the comment "public key"',
    });
  };
  if (text.length > limits.keyFileBytesMax) bad(`has more than ${limits.keyFileBytesMax} bytes`);
  const keys: string[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const key = line.trim();
    if (key === '' || key.startsWith('#')) continue;
    try {
      check(key);
    } catch {
      bad(`line ${index + 1} is not ${expected}`);
    }
    keys.push(key);
  }
  if (keys.length === 0) bad(`has no line that is ${expected}`);
  if (keys.length > limits.keysMax) bad(`has more than ${limits.keysMax} keys`);
  return keys;
}

// A NATS server's operator with one account, as `nsc` would make them: configuration and credentials files.
import { writeFileSync } from 'node:fs';
import {
  createAccount,
  createOperator,
  createUser,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fmtCreds,
} from '@nats-io/jwt';

const UNLIMITED = -1;

export class Accounts {
  readonly configFile: string;
  readonly #account = createAccount();

  private constructor(folder: string) {
    this.configFile = `${folder}/operator.conf`;
  }

  static async make(folder: string): Promise<Accounts> {
    const made = new Accounts(folder);
    const [operator, system] = [createOperator(), createAccount()];
    const jetstream = { mem_storage: UNLIMITED, disk_storage: UNLIMITED, streams: UNLIMITED };
    const limits = {
      ...jetstream,
      consumer: UNLIMITED,
      conn: UNLIMITED,
      subs: UNLIMITED,
      data: UNLIMITED,
      payload: UNLIMITED,
    };
    const [operatorToken, systemToken, accountToken] = await Promise.all([
      encodeOperator('test', operator, { system_account: system.getPublicKey() }),
      encodeAccount('system', system, {}, { signer: operator }),
      encodeAccount('midmirror', made.#account, { limits }, { signer: operator }),
    ]);
    writeFileSync(
      made.configFile,
      `operator: ${operatorToken}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${system.getPublicKey()}: ${systemToken}
  ${made.#account.getPublicKey()}: ${accountToken}
}
`,
    );
    return made;
  }

  /** A user of the account, or of one that the operator does not know. */
  async writeCreds(file: string, account: 'known' | 'unknown' = 'known'): Promise<void> {
    const user = createUser();
    const signer = account === 'known' ? this.#account : createAccount();
    const token = await encodeUser('midmirror', user, signer, {});
    writeFileSync(file, fmtCreds(token, user), { mode: 0o600 });
  }
}

// Certificates made by openssl, for servers and clients of a test; good for a day.
import { execFileSync } from 'node:child_process';

export interface CertificateFiles {
  certFile: string;
  keyFile: string;
}

export class Authority {
  readonly caFile: string;
  readonly #keyFile: string;
  #issued = 0;

  /** `name` tells it from others in the folder. */
  constructor(folder: string, name: string) {
    this.caFile = `${folder}/${name}.pem`;
    this.#keyFile = `${folder}/${name}.key`;
    openssl('-keyout', this.#keyFile, '-out', this.caFile, '-subj', `/CN=${name} of a test`);
  }

  /** `names`: as `DNS:localhost` and `IP:127.0.0.1`. */
  issue(commonName: string, names: readonly string[] = []): CertificateFiles {
    this.#issued += 1;
    const path = `${this.caFile.slice(0, -'.pem'.length)}-${this.#issued}`;
    const [certFile, keyFile] = [`${path}.pem`, `${path}.key`];
    const signed = [
      '-CA',
      this.caFile,
      '-CAkey',
      this.#keyFile,
      '-addext',
      'basicConstraints=critical,CA:FALSE',
    ];
    const known = names.length === 0 ? [] : ['-addext', `subjectAltName=${names.join(',')}`];
    openssl('-keyout', keyFile, '-out', certFile, '-subj', `/CN=${commonName}`, ...signed, ...known);
    return { certFile, keyFile };
  }
}

function openssl(...args: string[]): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  execFileSync('openssl', ['req', '-x509', '-days', '1', ...key, ...args], { stdio: 'pipe' });
}

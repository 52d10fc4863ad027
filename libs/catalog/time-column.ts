// Times in the catalogue: nanoseconds as decimal text of fixed width, so that text order is time order.

export function toNs(timeNs: bigint): string {
  return timeNs.toString().padStart(20, '0');
}

export function fromNs(column: string): bigint {
  return BigInt(column);
}

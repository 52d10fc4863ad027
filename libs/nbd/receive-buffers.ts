// Buffers that the kernel reads into, shared by reference with the writes whose data lies in them. A buffer
// goes back to the pool when the last write that points into it has been answered.

export const RECEIVE_BUFFER_BYTES = 256 << 10;
const POOLED_MAX = 64;

export class ReceiveBuffer {
  readonly bytes = new Uint8Array(RECEIVE_BUFFER_BYTES);
  /** Writes in flight that point here, and the connection while it reads into it. */
  references = 0;
  fill = 0;
}

export class ReceiveBufferPool {
  readonly #free: ReceiveBuffer[] = [];

  take(): ReceiveBuffer {
    const buffer = this.#free.pop() ?? new ReceiveBuffer();
    buffer.references = 1;
    buffer.fill = 0;
    return buffer;
  }

  release(buffer: ReceiveBuffer): void {
    buffer.references -= 1;
    if (buffer.references === 0 && this.#free.length < POOLED_MAX) this.#free.push(buffer);
  }
}

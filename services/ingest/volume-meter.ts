// What ingest counts of one volume's requests.
import type { RequestMeter } from '@midmirror/block-device';
import { Histogram } from '@midmirror/telemetry';

export class VolumeMeter implements RequestMeter {
  readonly writes = new Histogram();
  readonly flushes = new Histogram();
  writtenBytes = 0;
  writeErrors = 0;

  wrote(dataBytes: number, seconds: number): void {
    this.writtenBytes += dataBytes;
    this.writes.record(seconds);
  }

  failed(): void {
    this.writeErrors += 1;
  }

  flushed(seconds: number): void {
    this.flushes.record(seconds);
  }
}

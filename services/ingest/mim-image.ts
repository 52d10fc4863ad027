// The MIM as the base of the live disk: read only here; the synchronizer writes it.
import type { BaseImage } from '@midmirror/live-disk';
import { MimAllocation, type PoolFile, type PoolFiles, type VolumePaths } from '@midmirror/pool';

export class MimImage implements BaseImage {
  readonly #files: PoolFiles;
  readonly #paths: VolumePaths;
  readonly #file: PoolFile;
  #allocation: MimAllocation;

  private constructor(files: PoolFiles, paths: VolumePaths, file: PoolFile, allocation: MimAllocation) {
    this.#files = files;
    this.#paths = paths;
    this.#file = file;
    this.#allocation = allocation;
  }

  static async open(files: PoolFiles, paths: VolumePaths): Promise<MimImage> {
    const file = await files.open(paths.mimImage, 'read');
    return new MimImage(files, paths, file, await MimAllocation.load(files, paths));
  }

  /** A sync has changed which granules hold data. Call before the ranges it wrote leave the head map. */
  async reload(): Promise<void> {
    this.#allocation = await MimAllocation.load(this.#files, this.#paths);
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    if (!this.#allocation.any(start, length)) target.fill(0, targetOffset, targetOffset + length);
    else {
      const count = this.#file.readSync(target, targetOffset, length, start);
      target.fill(0, targetOffset + count, targetOffset + length);
    }
    return true;
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    const count = await this.#file.read(target, targetOffset, length, start);
    target.fill(0, targetOffset + count, targetOffset + length);
  }

  span(start: number, length: number): { lengthBytes: number; hole: boolean } {
    return this.#allocation.span(start, length);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

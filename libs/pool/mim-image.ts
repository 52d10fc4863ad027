// The MIM for reading: by the live disk, where its journal has nothing, and by mirrors. The synchronizer writes it.
import { Turns } from '@midmirror/basis';
import type { PoolFile, PoolFiles } from './files.ts';
import type { VolumePaths } from './layout.ts';
import { MimAllocation } from './mim-file.ts';

export class MimImage {
  readonly #files: PoolFiles;
  readonly #paths: VolumePaths;
  readonly #file: PoolFile;
  #allocation: MimAllocation;
  /** Of two calls the later one's look at the file counts. */
  readonly #reloading = new Turns();

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

  /** A sync has changed which granules hold data. Call before the ranges it wrote leave a map. */
  reload(): Promise<void> {
    return this.#reloading.take(async () => {
      this.#allocation = await MimAllocation.load(this.#files, this.#paths);
    });
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

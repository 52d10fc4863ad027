import { startNbdServer } from '@midmirror/nbd';
import { nodeFiles } from '@midmirror/pool';
import { LiveDisk } from '@midmirror/live-disk';
import { wallClock } from '@midmirror/basis';
import * as fs from 'node:fs';
const dir = process.argv[2]!;
fs.rmSync(dir, { recursive: true, force: true }); fs.mkdirSync(dir + '/forward', { recursive: true });
let disk: LiveDisk;
let recyc = false;
disk = await LiveDisk.open({
  files: nodeFiles(), directory: dir + '/forward', volumeId: 'v', sizeBytes: 4 * 2 ** 30, segmentBytes: 64 << 20, segmentsMax: 400, requestBytesMax: 32 << 20,
  syncIntervalMs: 100, clock: wallClock(), floor: { seq: 0, timeNs: 0n, anyFirst: false }, epochMin: 1,
  base: { tryRead: (_s, l, t, a) => { t.fill(0, a, a + l); return true; }, read: async () => {}, span: (_s, l) => ({ lengthBytes: l, hole: true }) },
  listener: { durable() {}, sealed(s) { s.log = null; if (recyc) void disk.recycle(s.lastSeq); }, pressure() {}, stateChanged(s, r) { console.log(s, r); } },
});
const server = await startNbdServer({ listen: { path: dir + '/sock' }, directory: { open: async () => ({ device: disk, description: 'x', release() {} }), list: async () => [] }, onError: console.error, receive: (process.argv[3] as 'direct') ?? 'direct' });
console.log('ready');
process.on('SIGTERM', async () => { await server.close(1000); await disk.close(); console.log(disk.headExtents, process.memoryUsage()); process.exit(0); });

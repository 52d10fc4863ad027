// The program of the kind `entropy`: goes through the points up to the one that is checked, and says what it thinks of the
// writes between them.
import { messageOf } from '@midmirror/basis';
import { MirrorSource } from '@midmirror/restore';
import { EntropyWatch, type EntropyVerdict } from '../../core/entropy.ts';
import { seedFrom, stepTo } from '../../entropy/feed.ts';
import { ExitStatus } from '../../runner/check-plan.ts';
import { say } from '../tool.ts';
import type { EntropyTask } from './plan.ts';

/** The monitor serves the points; when it is gone, so is this process. */
const NEVER_AWAY = { awayMsMax: 0, onAway: () => {} };

process.exitCode = await judge(JSON.parse(process.env['MIM_CHECK_SETTINGS'] ?? '') as EntropyTask).then(
  ({ verdict, reason, facts }) => {
    say(reason);
    say(JSON.stringify(facts));
    return verdict === 'bad' ? ExitStatus.bad : ExitStatus.good;
  },
  (error: unknown) => {
    say(messageOf(error));
    return ExitStatus.cannotTell;
  },
);

async function judge({ moments }: EntropyTask): Promise<EntropyVerdict> {
  let watch: EntropyWatch | null = null;
  let before: number | null = null;
  for (const { uri, seq, timeMs } of moments) {
    const changedSince = before === null ? {} : { changedSince: `seq:${before}` };
    const source = await MirrorSource.open({ uri, connections: 1, ...changedSince, ...NEVER_AWAY });
    try {
      if (watch === null) await seedFrom((watch = new EntropyWatch(source.sizeBytes)), source);
      else await stepTo(watch, source, timeMs);
    } finally {
      await source.close();
    }
    before = seq;
  }
  return watch!.look(moments.at(-1)!.timeMs);
}

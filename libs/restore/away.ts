// What needs the appliance is done again while it is away, waiting longer each time, for so long and no longer.
import { setTimeout as pause } from 'node:timers/promises';
import { againMs, isUnavailable, MidmirrorError, messageOf } from '@midmirror/basis';

export interface AwayOptions {
  awayMsMax: number;
  /** Told once each time it goes away. */
  onAway: (reason: string) => void;
}

/** What `act` gives. Rejects with any error but `unavailable` at once, with that one after `awayMsMax`. */
export async function whileAway<T>(act: () => Promise<T>, { awayMsMax, onAway }: AwayOptions): Promise<T> {
  let since: number | null = null;
  for (let failures = 1; ; failures += 1) {
    try {
      return await act();
    } catch (error) {
      if (!isUnavailable(error)) throw error;
      since ??= performance.now();
      if (failures === 1) onAway(messageOf(error));
      const left = awayMsMax - (performance.now() - since);
      if (left <= 0) {
        throw new MidmirrorError(
          'unavailable',
          `the appliance has been away for ${Math.round(awayMsMax / 1000)} s: ${messageOf(error)}`,
          { hint: 'run the same command again when it is back: it goes on where it stands', cause: error },
        );
      }
      await pause(Math.min(againMs(failures), left));
    }
  }
}

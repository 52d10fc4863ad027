// Hands one message to its handler: again and again, waiting longer each time, then to the dead letters, so that
// the next one can follow.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { deadSubject, type EventEnvelope, Streams } from '@midmirror/events';
import type { Bus, BusMessage } from './bus.ts';
import { limits } from './limits.ts';

export interface DeliveryOptions {
  stream: string;
  handler: (message: BusMessage) => Promise<void>;
  publish: Bus['publish'];
  stopping: () => boolean;
}

/**
 * Resolves when the message is handled or buried, or the consumer is stopping: then false. What fails as something
 * is away is no reason to bury: all that comes after would fail as well.
 */
export async function deliver(message: BusMessage, options: DeliveryOptions): Promise<boolean> {
  let waitMs: number = limits.retryMsMin;
  let failures = 0;
  let reason: unknown;
  for (;;) {
    const isPoison = failures === limits.attemptsMax;
    try {
      // A letter that can't be buried now stays the one in hand.
      if (isPoison) await bury(message, reason, options);
      else await options.handler(message);
      return true;
    } catch (error) {
      if (options.stopping()) return false;
      const isAway = error instanceof MidmirrorError && error.retryable;
      if (!isPoison && !isAway) {
        failures += 1;
        reason = error;
        if (failures === limits.attemptsMax) continue;
      }
      await pause(waitMs);
      waitMs = Math.min(waitMs * 4, limits.retryMsMax);
    }
  }
}

async function bury(message: BusMessage, reason: unknown, options: DeliveryOptions): Promise<void> {
  const envelope: EventEnvelope = {
    id: `${options.stream}/${message.position}`,
    headers: {
      ...message.headers,
      // A header is one line.
      'mim-dead-reason': messageOf(reason).replaceAll(/\s+/g, ' '),
      'mim-dead-stream': options.stream,
    },
    data: message.data,
  };
  await options.publish(Streams.dead, deadSubject(message.subject), envelope);
}

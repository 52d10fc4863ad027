// A bus whose requests go through somebody who may lose, refuse or answer them.
import type { Bus, RequestOptions } from '@midmirror/bus';
import { type RequestName, requestSubject } from '@midmirror/events';

/** `pass` asks in earnest. */
export type Between = (
  asked: (name: RequestName) => boolean,
  pass: () => Promise<unknown>,
) => Promise<unknown>;

export function requestsThrough(bus: Bus, between: Between): Bus {
  return {
    publish: bus.publish.bind(bus),
    publishIn: bus.publishIn.bind(bus),
    consume: bus.consume.bind(bus),
    ready: bus.ready.bind(bus),
    lastPosition: bus.lastPosition.bind(bus),
    lastOf: bus.lastOf.bind(bus),
    onReturn: bus.onReturn.bind(bus),
    purge: bus.purge.bind(bus),
    deadLetters: bus.deadLetters.bind(bus),
    respond: bus.respond.bind(bus),
    close: bus.close.bind(bus),
    request: async (subject: string, body: unknown, options?: RequestOptions) => {
      const asked = (name: RequestName): boolean => {
        const [service, request] = name.split('.') as [string, string];
        return subject === requestSubject(service, request);
      };
      return await between(asked, () => bus.request(subject, body, options));
    },
  };
}

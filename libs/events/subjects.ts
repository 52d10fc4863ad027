// Streams and subjects. Volume ids are lower-case hexadecimal, so they are one subject token each.

export const Streams = {
  /** Packed descriptors of durable writes; purged as segments are recycled. */
  journal: 'MIM_JOURNAL',
  /** Domain events, kept. */
  timeline: 'MIM_TIMELINE',
  /** What a consumer could not handle, with the reason. */
  dead: 'MIM_DEAD',
} as const;

export function journalSubject(volumeId: string): string {
  return `mim.journal.${volumeId}`;
}

export function timelineSubject(volumeId: string, type: string): string {
  return `mim.timeline.${volumeId}.${type.replaceAll('.', '-')}`;
}

/** Where a message of another stream lies when it is a dead letter. */
export function deadSubject(subject: string): string {
  return `mim.dead.${subject.replace(/^mim\./, '')}`;
}

export function requestSubject(service: string, request: string): string {
  return `mim.request.${service}.${request}`;
}

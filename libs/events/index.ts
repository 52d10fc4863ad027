export { type DomainEvent, type EventBodies, type EventType, eventId } from './domain-event.ts';
export { type EventEnvelope, envelopeOf, eventOf, traceparentOf } from './envelope.ts';
export { decodeDescriptors, encodeDescriptors, type JournaledDescriptors } from './extents-journaled.ts';
export { type MarkKind, markKinds } from './mark-kind.ts';
export type {
  CheckSchedule,
  ChosenPoint,
  OnCondemned,
  OpenMirrorView,
  RequestName,
  Requests,
  ToldCartridge,
  ToldCheckEnd,
  ToldCheckJob,
  ToldGap,
  ToldPutBack,
  ToldTapeJob,
  ToldTapePlan,
  ToldTapeRestore,
} from './requests.ts';
export { deadSubject, Streams, journalSubject, requestSubject, timelineSubject } from './subjects.ts';

// The kinds of sync indicator a journal can hold [0059].

export const markKinds = ['bookmark', 'application', 'group'] as const;
export type MarkKind = (typeof markKinds)[number];

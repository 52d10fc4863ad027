// What a check says of a moment.

/** `cannot-tell`: the check has not come to a verdict (exit status 125, a time-out, no file system there yet). */
export type Verdict = 'good' | 'bad' | 'cannot-tell';

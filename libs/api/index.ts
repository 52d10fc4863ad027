export { type Answer, API_PORT, Api, LOCAL_API, volumePath } from './api.ts';
export { framed, unframed } from './frames.ts';
export { type Problem, problemError, problemOf } from './problem.ts';

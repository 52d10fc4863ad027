export { type Answer, Api, volumePath } from './api.ts';
export { type Problem, problemError, problemOf } from './problem.ts';

export { type Answer, API_PORT, Api, LOCAL_API, volumePath } from './api.ts';
export { type Problem, problemError, problemOf } from './problem.ts';

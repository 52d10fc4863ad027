export { ExtentCursor, ExtentFlag, ExtentMap } from './extent-map.ts';

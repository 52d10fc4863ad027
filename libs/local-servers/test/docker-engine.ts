// Whether a Docker engine answers here, asked as the docker command line would: at DOCKER_HOST, or the usual socket.
import { get } from 'node:http';

export const ANSWER_MS_MAX = 2000;
const USUAL = 'unix:///var/run/docker.sock';

export interface EngineAnswer {
  answers: boolean;
  /** `unix:///var/run/docker.sock`; `no answer at …: ENOENT`. */
  says: string;
}

/** Never rejects: what is wrong is said. */
export async function askDockerEngine(
  environment: Readonly<Record<string, string | undefined>>,
  answerMsMax = ANSWER_MS_MAX,
): Promise<EngineAnswer> {
  const given = environment['DOCKER_HOST'] ?? '';
  const at = given === '' ? USUAL : given;
  const no = (why: string): EngineAnswer => ({ answers: false, says: `no Docker engine at ${at}: ${why}` });
  const target = targetOf(at);
  if (target === null) return no('only unix:///path and tcp://host:port are asked');
  try {
    const status = await ping(target, answerMsMax);
    return status === 200 ? { answers: true, says: at } : no(`it answers /_ping with ${status}`);
  } catch (error) {
    return no((error as NodeJS.ErrnoException).code ?? (error as Error).message);
  }
}

type Target = { socketPath: string } | { host: string; port: number };

function targetOf(at: string): Target | null {
  const unix = /^unix:\/\/(\/.+)$/.exec(at);
  if (unix !== null) return { socketPath: unix[1]! };
  const tcp = /^(?:tcp|http):\/\/(\[[\da-f:]+\]|[^:/]+):(\d+)\/?$/i.exec(at);
  if (tcp === null) return null;
  return { host: tcp[1]!.replace(/^\[|\]$/g, ''), port: Number(tcp[2]) };
}

async function ping(target: Target, answerMsMax: number): Promise<number> {
  const late = AbortSignal.timeout(answerMsMax);
  try {
    return await new Promise((resolve, reject) => {
      get({ ...target, path: '/_ping', agent: false, signal: late }, (response) => {
        response.destroy();
        resolve(response.statusCode ?? 0);
      }).on('error', reject);
    });
  } catch (error) {
    if (late.aborted) throw new Error(`no answer within ${answerMsMax} ms`, { cause: error });
    throw error;
  }
}

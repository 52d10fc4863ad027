// A real Prometheus for one test: a folder and a port of its own, the alerts of deploy/, a look each second.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { freePort } from '@midmirror/local-servers';
import { cleanEnvironment, ROOT } from '../appliance/appliance-process.ts';

const START_MS_MAX = 30_000;
const RULES = `${ROOT}/deploy/prometheus/alerts.yml`;

/** A process that is looked at. */
export interface Target {
  /** Where it serves its metrics. */
  metrics: string;
  /** Which service it is, of several. */
  service?: string;
}

export interface Rule {
  name: string;
  state: 'inactive' | 'pending' | 'firing';
  query: string;
  health: string;
  lastError?: string;
  annotations: Record<string, string>;
}

export interface Sample {
  metric: Record<string, string>;
  value: [number, string];
}

export class PrometheusProcess {
  readonly #child: ChildProcess;
  readonly #url: string;
  readonly #ended: Promise<void>;
  #output = '';

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.#url = url;
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()));
    for (const stream of [child.stdout!, child.stderr!])
      stream.setEncoding('utf8').on('data', (text: string) => (this.#output += text));
  }

  static async start(folder: string, targets: readonly Target[]): Promise<PrometheusProcess> {
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [RULES],
      scrape_configs: [
        {
          job_name: 'midmirror',
          static_configs: targets.map(({ metrics, service }) => ({
            targets: [new URL(metrics).host],
            labels: service === undefined ? {} : { service },
          })),
        },
      ],
    };
    writeFileSync(`${folder}/prometheus.yml`, JSON.stringify(config)); // JSON is YAML
    const listen = `127.0.0.1:${await freePort()}`;
    const child = spawn(
      'prometheus',
      [
        `--config.file=${folder}/prometheus.yml`,
        `--storage.tsdb.path=${folder}/tsdb`,
        `--web.listen-address=${listen}`,
      ],
      { env: cleanEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const started = new PrometheusProcess(child, `http://${listen}`);
    const deadline = Date.now() + START_MS_MAX;
    while (!(await started.#isReady())) {
      assert.ok(Date.now() < deadline && child.exitCode === null, `Prometheus: ${started.#output}`);
      await pause(100);
    }
    return started;
  }

  async query(expression: string): Promise<Sample[]> {
    const answer = await this.#get<{ result: Sample[] }>(`query?query=${encodeURIComponent(expression)}`);
    return answer.result;
  }

  async rules(): Promise<Rule[]> {
    const { groups } = await this.#get<{ groups: { rules: Rule[] }[] }>('rules');
    return groups.flatMap(({ rules }) => rules);
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#ended;
  }

  async #isReady(): Promise<boolean> {
    return await fetch(`${this.#url}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  }

  async #get<T>(path: string): Promise<T> {
    const answer = await fetch(`${this.#url}/api/v1/${path}`);
    const body = (await answer.json()) as { status: string; error?: string; data: T };
    assert.equal(body.status, 'success', `${path}: ${body.error}`);
    return body.data;
  }
}

// A README's commands by section, for a test that runs them: shell lines (```console) and what is said with a
// monitor (```qmp: -> sent, <- awaited).
import assert from 'node:assert/strict';
import { succeed } from '../appliance/appliance-process.ts';
import type { Qmp } from './qmp.ts';

type Step = { shell: string } | { send: string } | { await: string };

export class Recipe {
  readonly #sections = new Map<string, Step[]>();

  constructor(text: string) {
    for (const section of text.split(/^## /m).slice(1)) {
      const name = section.slice(0, section.indexOf('\n'));
      const blocks = [...section.matchAll(/^```(console|qmp)\n([\s\S]*?)^```/gm)];
      this.#sections.set(
        name,
        blocks.flatMap(([, kind, lines]) => (kind === 'console' ? shellSteps(lines!) : qmpSteps(lines!))),
      );
    }
  }

  /**
   * All of a section, in order; what the monitor tells is what the section says. `local` puts a test's own places
   * into a line.
   */
  async run(
    section: string,
    local: (line: string) => string,
    env: Record<string, string>,
    qmp: Qmp,
  ): Promise<void> {
    const steps = this.#sections.get(section);
    assert.ok(steps !== undefined && steps.length > 0, `the recipe has commands under "${section}"`);
    for (const step of steps) {
      if ('shell' in step) await succeed('/bin/sh', ['-c', local(step.shell)], { env });
      else if ('send' in step) {
        const { execute, arguments: args } = JSON.parse(local(step.send)) as {
          execute: string;
          arguments: Record<string, unknown>;
        };
        await qmp.execute(execute, args);
      } else {
        const { event, data } = JSON.parse(step.await) as { event: string; data: Record<string, unknown> };
        const came = await qmp.event(event);
        for (const [name, value] of Object.entries(data)) assert.equal(came.data?.[name], value, name);
        assert.equal(came.data?.['error'], data['error'], event);
      }
    }
  }
}

function shellSteps(lines: string): Step[] {
  return lines
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => line.startsWith('$ '))
    .map((line) => ({ shell: line.slice(2) }));
}

function qmpSteps(lines: string): Step[] {
  return lines
    .trimEnd()
    .split('\n')
    .map((line) => (line.startsWith('-> ') ? { send: line.slice(3) } : { await: line.slice(3) }));
}

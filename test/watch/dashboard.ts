// The queries of the Grafana dashboard, as Prometheus takes them.
import { readFileSync } from 'node:fs';
import { ROOT } from '../appliance/appliance-process.ts';

export interface PanelQuery {
  panel: string;
  expression: string;
}

interface Panel {
  title: string;
  targets?: { expr: string }[];
}

export function panelQueries(): PanelQuery[] {
  const { panels } = JSON.parse(readFileSync(`${ROOT}/deploy/grafana/midmirror.json`, 'utf8')) as {
    panels: Panel[];
  };
  return panels.flatMap(({ title, targets }) =>
    (targets ?? []).map(({ expr }) => ({ panel: title, expression: expr })),
  );
}

/** What Grafana puts in for its variables: one volume, and a span that holds some looks. */
export function filledIn(expression: string, volume: string): string {
  return expression.replaceAll('$volume', volume).replaceAll('$__rate_interval', '10s');
}

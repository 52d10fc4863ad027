// The queries of the Grafana dashboard, as Prometheus takes them.
import { readFileSync } from 'node:fs';
import { ROOT } from '../appliance/appliance-process.ts';

export interface PanelQuery {
  panel: string;
  expression: string;
  /** Names each series, `{{label}}`; empty: a table, with a line for each volume. */
  legend: string;
}

interface Panel {
  title: string;
  targets?: { expr: string; legendFormat: string }[];
}

export function panelQueries(): PanelQuery[] {
  const { panels } = JSON.parse(readFileSync(`${ROOT}/deploy/grafana/midmirror.json`, 'utf8')) as {
    panels: Panel[];
  };
  return panels.flatMap(({ title, targets }) =>
    (targets ?? []).map(({ expr, legendFormat }) => ({
      panel: title,
      expression: expr,
      legend: legendFormat,
    })),
  );
}

/** What Grafana puts in for its variables: some volumes, and a span that holds some looks. */
export function filledIn(expression: string, volumes: readonly string[]): string {
  return expression.replaceAll('$volume', volumes.join('|')).replaceAll('$__rate_interval', '10s');
}

/** The name that a series has in the panel. */
export function seriesName(legend: string, labels: Readonly<Record<string, string>>): string {
  return (legend === '' ? '{{volume}}' : legend).replaceAll(
    /\{\{(\w+)\}\}/g,
    (_, name) => labels[name] ?? '',
  );
}

// The dashboard and the alert rules name metrics and labels that a service has; test/long/manifests.test.ts checks their
// syntax with promtool.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { parse } from 'yaml'
import type { BtfGenerator } from '../service/demand/generation.ts'
import { startServer } from '../service/index.ts'
import { openStore, putRecord } from '../storage/index.ts'
import { btfOf, RAW, recordOf } from './helpers/test-service.ts'
import { ready } from './helpers/wait-until.ts'

const MONITORING = join(import.meta.dirname, '../docker/monitoring')
const alerts = parse(readFileSync(join(MONITORING, 'alerts.yml'), 'utf8'))
const dashboard = JSON.parse(readFileSync(join(MONITORING, 'dashboard.json'), 'utf8'))

interface Rule {
  alert: string
  expr: string
  labels: { severity: string }
  annotations: { summary: string; description: string }
}
interface Panel {
  id: number
  title: string
  type: string
  gridPos: { x: number; y: number; w: number; h: number }
  targets?: { expr: string; datasource: { uid: string } }[]
}

const rules: Rule[] = alerts.groups.flatMap(({ rules }: { rules: Rule[] }) => rules)
const panels: Panel[] = dashboard.panels
const variables: { name: string; query: string }[] = dashboard.templating.list
const queries = [
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
  ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
  ...variables
    .filter(({ query }) => query !== 'prometheus')
    .map(({ name, query }) => [name, query] as const),
]

/** Labels that Prometheus gives to each series. */
const OF_PROMETHEUS = ['instance', 'job']

/** The metrics of a service with generation on demand after some requests, with their labels. */
async function metricsOf(t: Test): Promise<Map<string, Set<string>>> {
  const store = await openStore('memory:')
  await putRecord(store, recordOf({}, { btf: await btfOf(store, RAW.little) }))
  const generator: BtfGenerator = {
    underWay: 0,
    submit: () => undefined,
    get: () => undefined,
    async *watch() {},
  } as unknown as BtfGenerator
  const config = { listen: '127.0.0.1:0', drain: 0, generate: 'on-miss' } as const
  const server = await startServer({ store, config, generator })
  t.teardown(() => server.stop())
  const { url } = server
  await ready(url)
  for (const path of ['v1/btf/debian/12/x86_64/6.1.0-1-amd64', 'v1/kernels', 'nothing'])
    await (await request(`${url}/${path}`)).body.dump()
  const text = await (await request(`${url}/metrics`)).body.text()
  const metrics = new Map<string, Set<string>>()
  for (const [, name] of text.matchAll(/^# TYPE (\w+) /gm)) metrics.set(name!, new Set())
  for (const [, name, labels = ''] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    const all = metrics.get(name!) ?? new Set()
    for (const [, label] of labels.matchAll(/(\w+)="/g)) all.add(label!)
    metrics.set(name!, all)
  }
  return metrics
}

t.test('each metric and label in the dashboard and the alert rules exists', async (t) => {
  const metrics = await metricsOf(t)
  t.ok(queries.length > 30)
  for (const [where, query] of queries) {
    const named = [...query.matchAll(/\b((?:btfmill|process|nodejs)_\w+)(?:\{([^}]*)\})?/g)]
    t.ok(named.length > 0, `${where} names a metric`)
    const known = new Set(OF_PROMETHEUS)
    for (const [, name, matchers = ''] of named) {
      const labels = metrics.get(name!)
      t.ok(labels, `${where}: ${name}`)
      for (const label of labels ?? []) known.add(label)
      // a metric that has counted nothing yet has no labels to compare with
      if (!labels?.size) continue
      for (const [, label] of matchers.matchAll(/(\w+)[=!]~?"/g))
        t.ok(labels.has(label!) || OF_PROMETHEUS.includes(label!), `${where}: ${name}{${label}}`)
    }
    for (const [, list] of query.matchAll(/\bby \(([^)]*)\)/g))
      for (const label of list!.split(',').map((text) => text.trim()))
        t.ok(known.has(label), `${where}: by (${label})`)
  }
})

t.test(
  'each alert rule has a severity, a summary, and a description that says what to do',
  async (t) => {
    for (const { alert, labels, annotations } of rules) {
      t.match(alert, /^Btfmill[A-Z]\w+$/)
      t.match(labels.severity, /^(critical|warning|info)$/, alert)
      t.ok(annotations.summary && annotations.description, alert)
    }
    t.equal(
      new Set(rules.map(({ alert }) => alert)).size,
      rules.length,
      'each has a name of its own',
    )
  },
)

t.test(
  'the dashboard has panels that do not overlap, and lets its data source be chosen',
  async (t) => {
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
    )
    t.equal(new Set(cells).size, cells.length)
    t.ok(panels.every(({ gridPos: { x, w } }) => x + w <= 24))
    t.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
    const names = variables.map(({ name }) => name)
    for (const { targets = [] } of panels)
      for (const { expr, datasource } of targets) {
        t.equal(datasource.uid, `\${datasource}`)
        for (const [, name] of expr.matchAll(/\$(\w+)/g))
          t.ok(name === '__rate_interval' || names.includes(name!), name!)
      }
  },
)

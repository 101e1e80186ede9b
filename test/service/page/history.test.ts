// Pages over all kernels: histories of types, members and functions, search and differences from the index.
import { join } from 'node:path'
import t from 'tap'
import type { DiffView } from '../../../service/page/diff-page.ts'
import { drawChart } from '../../../service/page/history-chart.ts'
import type { HistoryView } from '../../../service/page/history-page.ts'
import type { SearchView } from '../../../service/page/search-page.ts'
import type { BuildRecord, Store } from '../../../storage/index.ts'
import { faultsOf } from '../../helpers/axe.ts'
import { startBrowser } from '../../helpers/browser.ts'
import { compileBtf, SMALL_KERNELS } from '../../helpers/kernel-series.ts'
import { ask, btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const folder = t.testdir()
const raw = SMALL_KERNELS.map(([release, source]) => [release, compileBtf(folder, source)] as const)

const records = async (store: Store): Promise<BuildRecord[]> => {
  const made = await Promise.all(
    raw.map(async ([release, bytes]) => recordOf({ release }, { btf: await btfOf(store, bytes) })),
  )
  const [first] = made
  return [...made, recordOf({ version: '11', release: '5.10.0-1-amd64' }, { btf: first!.btf! })]
}

const index = join(folder, 'index.sqlite')
const { url, store } = await startTestService(t, records, { settings: { index } })
await until(
  () => ask(`${url}/v1/stats`),
  ({ status }) => status !== 503,
)

async function view<View>(path: string): Promise<View> {
  const { json } = await ask(url + path, { accept: 'application/json' })
  return json as View
}
const text = async (path: string) => (await ask(url + path)).bytes.toString()
const goes = async (path: string) => (await ask(url + path)).headers.location

t.test('/types/NAME/history has the runs of each series, newest distribution first', async (t) => {
  const { histories } = await view<HistoryView>('/types/task_struct/history')
  const [{ groups, forms, kernels }] = histories as [HistoryView['histories'][number]]
  t.match({ kernels, forms }, { kernels: 4, forms: { length: 3 } })
  t.same(
    groups.map(({ distro, version }) => `${distro} ${version}`),
    ['debian 12', 'debian 11'],
  )
  const [one, two, three] = groups[0]!.series[0]!.runs!
  t.match(one, { first: '6.1.0-1-amd64', kernels: 1, changes: [] })
  t.match(two!.changes.join('; '), /^added flags; 1 member moved$/)
  t.match(three!.changes.join('; '), /state is now __state/)
  t.equal((await ask(url + three!.diff!)).status, 200)
  t.equal((await ask(url + three!.href!)).status, 200)
  const html = await text('/types/task_struct/history')
  t.match(html, /<svg class="chart"/)
  t.match(html, /<svg class="strip"/)
})

t.test('a history of one distribution leaves the others out', async (t) => {
  const path = '/types/task_struct/history?distro=debian&version=11'
  const { histories } = await view<HistoryView>(path)
  t.same(
    histories[0]!.groups.map(({ version }) => version),
    ['11'],
  )
})

t.test('/types/NAME.MEMBER shows where a member came, moved and was renamed', async (t) => {
  const { histories } = await view<HistoryView>('/types/task_struct.__state')
  const runs = histories[0]!.groups[0]!.series[0]!.runs!
  t.same(
    runs.map(({ text }) => text),
    ['not a member', 'unsigned int, at 8, 4 bytes'],
  )
  t.same(runs[1]!.changes, ['came', 'was called state'])
  const pid = await view<HistoryView>('/types/task_struct.pid')
  t.same(pid.histories[0]!.groups[0]!.series[0]!.runs![1]!.changes, ['moved'])
  const value = await view<HistoryView>('/types/mode.MODE_B')
  t.same(value.histories[0]!.groups[0]!.series[0]!.runs![1]!.text, '= 2')
  t.match(await ask(`${url}/types/task_struct.none`), {
    status: 404,
    json: { code: 'unknown_type' },
  })
})

t.test(
  'the page of a type leads to its history, and its offsets to those of members',
  async (t) => {
    const html = await text('/types/task_struct')
    t.match(html, /<a href="\/types\/task_struct\/history">History over all kernels<\/a>: 3 forms/)
    t.match(html, /<a href="\/types\/task_struct\.pid">4<\/a>/)
  },
)

t.test('functions, tracepoints, helpers and map types have histories', async (t) => {
  const { histories } = await view<HistoryView>('/functions/vfs_read/history')
  t.match(
    histories[0]!.groups[0]!.series[0]!.runs![1]!.text,
    /^long vfs_read\(int fd, char \*to, long at\)$/,
  )
  t.equal(await goes('/functions/sched_switch'), '/functions/sched_switch/history')
  t.match(await text('/functions/sched_switch/history'), /<title>tracepoint sched_switch/)
  t.match(await text('/functions/BPF_MAP_TYPE_HASH/history'), /<title>map type BPF_MAP_TYPE_HASH/)
  t.equal((await ask(`${url}/functions/none/history`)).status, 404)
})

t.test('a type that only older kernels have is shown as they have it', async (t) => {
  // the newest kernel of version 12 has it, that of 11 does not
  t.equal((await ask(`${url}/types/fresh`)).status, 200)
  t.equal(await goes('/types/fresh?kernel=debian/11/x86_64/5.10.0-1-amd64'), '/types/fresh/history')
})

t.test('/search finds members and enumerators of all kernels', async (t) => {
  t.equal(await goes('/search?q=task_struct.pid'), '/types/task_struct.pid')
  t.equal(await goes('/search?q=task_struct'), '/types/task_struct')
  t.equal(await goes('/search?q=sched_switch'), '/functions/sched_switch')
  const { names } = await view<SearchView>('/search?q=state')
  t.same(
    new Set(names.map(({ href }) => href)),
    new Set(['/types/task_struct.state', '/types/task_struct.__state']),
  )
})

t.test('filters of /diff open no BTF: the index knows them', async (t) => {
  const path = '/diff/debian/12/x86_64/6.1.0-1-amd64..debian/12/x86_64/6.1.0-10-amd64'
  const get = store.get
  store.get = async (key) => {
    throw new Error(`${key} was read`)
  }
  t.teardown(() => {
    store.get = get
  })
  const whole = await view<DiffView>(path)
  const names = async (query: string) => {
    const { entries, found, counts } = await view<DiffView>(`${path}?${query}`)
    t.same(counts, whole.counts)
    t.equal(found, entries.length)
    return entries.map(({ name }) => name)
  }
  t.same(await names('change=added&kind=struct'), ['fresh'])
  t.same(await names('name=task_str'), ['task_struct'])
  t.same(await names('name=no_such_name'), [])
})

t.test('/diff counts all kinds, and shows one', async (t) => {
  const path = '/diff/debian/12/x86_64/6.1.0-1-amd64..debian/12/x86_64/6.1.0-10-amd64'
  const all = await view<DiffView>(path)
  t.same(
    all.counts.map(({ kind, counts }) => [kind, counts.changed, counts.added]),
    [
      ['struct', 1, 1],
      ['enum', 1, 0],
      ['func', 1, 0],
      ['int', 0, 1], // unsigned int
    ],
  )
  const enums = await view<DiffView>(`${path}?kind=enum`)
  t.equal(enums.counts.length, 4)
  t.match(enums.entries, [
    { name: 'mode', lines: [{ sign: '+', text: 'MODE_C = 1' }, { sign: '~' }] },
  ])
  const added = await view<DiffView>(`${path}?kind=struct&change=added`)
  t.match(added.entries, [{ name: 'fresh', change: 'added' }])
})

t.test('a chart has a line for each series, and steps where the number changes', (t) => {
  const points = [
    { version: '6.1', value: 8 },
    { version: '6.2', value: 8 },
    { version: '6.3', value: 16 },
    { version: '6.4', value: undefined },
    { version: '6.5', value: 16 },
  ]
  const versions = points.map(({ version }) => version)
  const svg = drawChart([{ label: '<b>', points }], versions, 'sizes')!
  t.equal(svg.match(/<path /g)?.length, 2, 'two stretches')
  t.match(svg, /V[\d.]+"/, 'a step')
  t.notMatch(svg, /<b>/)
  t.equal(drawChart([{ label: 'one', points: points.slice(0, 1) }], ['6.1'], 'sizes'), undefined)
  t.end()
})

t.test('history pages are accessible', async (t) => {
  const browser = await startBrowser()
  t.teardown(() => browser.close())
  const page = await browser.newPage()
  const errors: string[] = []
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  for (const path of [
    ...['/types/task_struct/history', '/types/task_struct.pid', '/functions/vfs_read/history'],
    ...['/types/task_struct', '/search?q=state'],
  ]) {
    await page.goto(url + path)
    t.same(await faultsOf(page), [], path)
  }
  t.same(errors, [])
})

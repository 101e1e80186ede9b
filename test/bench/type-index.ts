// npm run bench:index [-- STORE]: size and times of the index of all types, over a store of real kernels (default:
// .cache/debian-store), such as `generate --from embedded` makes. The index is built from nothing without the newest kernel of each series. Then each of those is
// added by a writer that opens the file for it. At the end each question is asked by a reader that has just opened the
// file, and again. All times are CPU.
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { DECLARATION_KINDS } from '../../bpf/index.ts'
import { IndexReader } from '../../service/declarations/reader.ts'
import { catalogKernel, IndexWriter } from '../../service/declarations/writer.ts'
import { Catalog, getBlob, openStore, seriesOf, sortableRelease } from '../../storage/index.ts'
import { median, table } from './measure.ts'

const path = resolve(process.argv[2] ?? join(import.meta.dirname, '../../.cache/debian-store'))
const store = await openStore(`file:${path}`, { create: false })
const kernels = [...(await Catalog.open(store)).list()]
  .filter(({ record }) => record.btf)
  .map(({ key, record }) => ({
    ...{ entry: catalogKernel(key, record), size: record.btf!.size },
    order: `${seriesOf(record.kernel)}\0${sortableRelease(record.kernel.release)}`,
    series: seriesOf(record.kernel),
  }))
  .sort((a, b) => (a.order < b.order ? -1 : 1))
if (kernels.length === 0) throw new Error(`no kernels in ${path}`)
const newest = kernels.filter(({ series }, i) => {
  const [before, after] = [kernels[i - 1]?.series, kernels[i + 1]?.series]
  return before === series && after !== series
})

const folder = mkdtempSync(join(tmpdir(), 'btfmill-index-'))
process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'index.sqlite')

/** Returns the seconds of CPU that work takes. */
async function cpuOf(work: () => Promise<void> | void): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

const added = new Set<string>()
const first: number[] = []
const next: number[] = []
const built = await cpuOf(async () => {
  const writer = IndexWriter.open(file)
  let last: string | undefined
  for (const one of kernels) {
    const { entry, series } = one
    if (newest.includes(one) || added.has(entry.sha256)) continue
    added.add(entry.sha256)
    const raw = await getBlob(store, entry.sha256)
    const times = series === last ? next : first
    times.push(await cpuOf(() => void writer.add(raw, entry)))
    last = series
  }
  writer.setKernels(
    kernels.filter(({ entry }) => added.has(entry.sha256)).map(({ entry }) => entry),
  )
  writer.close()
})

const one: number[] = []
for (const { entry } of newest) {
  if (added.has(entry.sha256)) continue
  const raw = await getBlob(store, entry.sha256)
  one.push(
    await cpuOf(() => {
      const writer = IndexWriter.open(file)
      writer.add(raw, entry)
      writer.close()
    }),
  )
}
const writer = IndexWriter.open(file)
writer.setKernels(
  kernels.map(({ entry }) => entry),
  { whole: true },
)
writer.close()

const reader = new IndexReader(file)
const stats = reader.stats()
const raw = new Map(kernels.map(({ entry, size }) => [entry.sha256, size]))
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
const seconds = (time: number) => `${time.toFixed(2)} s`
console.log(
  table([
    ['kernels', 'BTFs', 'series', 'declarations', 'forms', 'index', 'raw BTF'],
    [
      ...[stats.kernels, stats.btfs, stats.series].map(String),
      String(stats.declarations.reduce((sum, { count }) => sum + count, 0)),
      ...[String(stats.forms), megabytes(statSync(file).size)],
      megabytes([...raw.values()].reduce((sum, size) => sum + size, 0)),
    ],
  ]),
)
console.log(
  table([
    [
      'built',
      'first of a series',
      'next, median',
      'next, max',
      'added alone, median',
      'max',
      'rss',
    ],
    [
      ...[built, median(first), median(next), Math.max(...next)].map(seconds),
      ...[median(one), Math.max(...one)].map(seconds),
      megabytes(process.resourceUsage().maxRSS * 1024),
    ],
  ]),
)

/** Milliseconds of a question: of the first time, in a reader that was just opened, and of the second. */
function timesOf(ask: (index: IndexReader) => unknown): [number, number] {
  const index = new IndexReader(file)
  const times = [0, 1].map(() => {
    const before = process.cpuUsage()
    ask(index)
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  })
  index.close()
  return times as [number, number]
}

const FAMOUS = ['task_struct', 'sock', 'sk_buff', 'net_device', 'file', 'inode', 'bpf_func_id']
const { entries } = reader.diff(kernels[0]!.entry.kernel, kernels.at(-1)!.entry.kernel, {
  ...{ kinds: [...DECLARATION_KINDS], limit: 500 },
})!
const NAMES = [
  ...new Set([...FAMOUS, 'vfs_read', 'int', 'u64', ...entries.map(({ name }) => name)]),
]
const series = reader.series().filter(({ kernels }) => kernels > 1)
const [from, to] = [series[0]!.first, series[0]!.last]
reader.close()

const QUESTIONS: readonly (readonly [string, ((index: IndexReader) => unknown)[]])[] = [
  [`history of ${NAMES.length} names`, NAMES.map((name) => (index) => index.history(name))],
  ['history of task_struct', [(index) => index.history('task_struct')]],
  [
    'history of 4 members',
    ['pid', '__state', 'comm', 'real_parent'].map(
      (name) => (index) => index.memberHistory('task_struct', name),
    ),
  ],
  [`${FAMOUS.length} types of the newest`, FAMOUS.map((name) => (index) => index.declared(name))],
  [
    'search for 6 texts',
    ['task', 'vfs_', '__state', 'BPF_MAP', 'truct_t', '6.12'].map(
      (text) => (index) => index.search(text),
    ),
  ],
  ['diff of a series, 100 entries', [(index) => index.diff(from, to)]],
  [
    'filters of that diff',
    [
      { kinds: ['struct' as const] },
      { change: 'added' as const },
      { part: 'task' },
      { name: 'task_struct' },
      { kinds: ['func' as const], change: 'removed' as const, part: 'bpf' },
      { cursor: '100' },
    ].map((filter) => (index) => index.diff(from, to, filter)),
  ],
  ['neighbours', [(index) => index.neighbours(to)]],
  ['stats', [(index) => index.stats()]],
]
const milliseconds = (time: number) => `${time.toFixed(1)} ms`
console.log(
  table([
    ['question', 'first, median', 'max', 'again, median', 'max'],
    ...QUESTIONS.map(([name, questions]) => {
      const times = questions.map(timesOf)
      const [cold, warm] = [times.map(([first]) => first), times.map(([, again]) => again)]
      return [
        name,
        ...[median(cold), Math.max(...cold), median(warm), Math.max(...warm)].map(milliseconds),
      ]
    }),
  ]),
)

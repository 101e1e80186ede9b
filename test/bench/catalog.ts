// npm run bench:catalog: opens a catalog of 50 000 records, from the snapshot and from the records, each in a separate
// process, and times queries.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import {
  type BuildRecord,
  buildOf,
  Catalog,
  openStore,
  recordKey,
  type Store,
} from '../../storage/index.ts'
import { median, mib, nodeAsStarted, table } from './measure.ts'

const RECORDS = 50_000
const RUNS = 3
const PAGE = 100
const NOW = '2026-11-01T12:00:00.000Z'

const hex = (n: number, length: number): string =>
  BigInt.asUintN(256, BigInt(n + 1) * 0x9e3779b97f4a7c15f39cc0605cedc834n)
    .toString(16)
    .padStart(length, '0')
    .slice(0, length)

/** Makes a record like a generated one. Two records each share their BTF. */
function recordOf(n: number): BuildRecord {
  const [distro, version] = [`distro${n % 10}`, String(n % 7)]
  const arch = ['x86_64', 'aarch64', 's390x'][n % 3]!
  const release = `5.${n % 20}.0-${n}-generic`
  return {
    schema: 1,
    kernel: {
      distro,
      version,
      arch,
      release,
      buildId: hex(n, 40),
      unameVersion: `#${n} SMP PREEMPT_DYNAMIC Debian 6.1.${n}-1 (2026-10-02)`,
    },
    package: {
      name: `linux-image-${release}-dbg`,
      version: `5.${n % 20}.${n}-1`,
      url: `https://example.org/debian/pool/main/l/linux/linux-image-${release}-dbg_${n}_amd64.deb`,
      sha256: hex(n + 1_000_000, 64),
      size: 800_000_000 + n,
      authenticated: 'index',
    },
    embedded: false,
    origin: 'pahole',
    btf: {
      sha256: hex(Math.floor(n / 2), 64),
      size: 4_000_000 + n,
      types: 90_000 + n,
      kinds: [
        'INT',
        'PTR',
        'ARRAY',
        'STRUCT',
        'UNION',
        'ENUM',
        'FWD',
        'TYPEDEF',
        'VOLATILE',
        'CONST',
      ],
      byteOrder: 'little',
      pointerSize: 8,
    },
    tool: {
      name: 'pahole',
      version: '1.24',
      options: [
        '--btf_gen_floats',
        '--lang_exclude=rust',
        '--skip_encoding_btf_inconsistent_proto',
      ],
      fingerprint: 'pahole-1.24-0123456789ab',
    },
    createdAt: NOW,
    updatedAt: NOW,
  }
}

/** Writes records to a store on disk, without `put`, whose syncs take minutes, and publishes the snapshot. */
async function fill(directory: string): Promise<void> {
  const store = await openStore(`file:${directory}`)
  for (let n = 0; n < RECORDS; n++) {
    const record = recordOf(n)
    const path = join(directory, recordKey(record.kernel, buildOf(record)))
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, `${JSON.stringify(record, null, 2)}\n`)
  }
  await Catalog.publish(store)
}

interface Figures {
  /** seconds until the catalog is ready */
  start: number
  /** bytes */
  rss: number
  /** seconds per query */
  lookUp: number
  page: number
}

/** Opens the catalog and times queries. Runs in a separate process. */
async function ask(store: Store, from: 'snapshot' | 'records'): Promise<Figures> {
  const started = performance.now()
  const catalog = await (from === 'snapshot' ? Catalog.openSnapshot(store) : openAll(store))
  const start = (performance.now() - started) / 1000
  const { rss } = process.memoryUsage()
  if (catalog.size !== RECORDS) throw new Error(`${catalog.size} records`)
  const lookUp = seconds(20_000, (n) => {
    const { kernel } = recordOf((n * 7919) % RECORDS)
    if (catalog.find(kernel).length !== 1) throw new Error(`no ${kernel.release}`)
  })
  const page = seconds(50, (n) => {
    const filter = { distro: `distro${n % 10}`, release: `5.${n % 20}.*-generic` }
    if ([...catalog.list(filter).take(PAGE)].length === 0) throw new Error('an empty page')
  })
  return { start, rss, lookUp, page }
}

async function openAll(store: Store): Promise<Catalog> {
  const catalog = new Catalog(store)
  await catalog.refresh()
  return catalog
}

function seconds(times: number, work: (n: number) => void): number {
  const started = performance.now()
  for (let n = 0; n < times; n++) work(n)
  return (performance.now() - started) / 1000 / times
}

async function main(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-bench-'))
  try {
    await fill(directory)
    const rows = [['', 'start', 'memory', 'look-up', `page of ${PAGE}`]]
    for (const from of ['snapshot', 'records'] as const) {
      const runs = Array.from({ length: RUNS }, (): Figures => {
        const { options, env } = nodeAsStarted()
        const child = [...options, import.meta.filename, from, directory]
        return JSON.parse(execFileSync(process.execPath, child, { encoding: 'utf8', env }))
      })
      const middle = (of: keyof Figures) => median(runs.map((run) => run[of]))
      rows.push([
        `from the ${from}`,
        `${middle('start').toFixed(2)} s`,
        mib(middle('rss')),
        `${(middle('lookUp') * 1e6).toFixed(1)} µs`,
        `${(middle('page') * 1e3).toFixed(2)} ms`,
      ])
    }
    console.log(`${RECORDS} records, median of ${RUNS} runs\n${table(rows)}`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const [from, directory] = process.argv.slice(2)
if (from === undefined) await main()
else if (from === 'snapshot' || from === 'records')
  console.log(JSON.stringify(await ask(await openStore(`file:${directory}`), from)))

// npm run bench:catalog: opens a catalog of 50 000 records, from the snapshot and from the records, each in a separate
// process, and times queries. Then reads an index of 200 000 packages, as large as Ubuntu's, for the first time and again.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { findPackages, type Source } from '../../generator/index.ts'
import {
  type BuildRecord,
  buildOf,
  Catalog,
  openStore,
  recordKey,
  type Store,
} from '../../storage/index.ts'
import { makeSigner } from '../helpers/signer.ts'
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

const PACKAGES = 200_000
/** Every so many packages are of a kernel. */
const KERNEL_EVERY = 100

/** A stanza of Packages like those of Ubuntu's debug symbols. */
function stanzaOf(n: number): string {
  const kernel = `linux-image-unsigned-5.4.0-${n}-generic-dbgsym`
  const name = n % KERNEL_EVERY === 0 ? kernel : `libexample${n}-dbgsym`
  return [
    `Package: ${name}`,
    `Version: 5.4.0-${n}.${n}`,
    'Architecture: amd64',
    'Maintainer: Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.example>',
    `Installed-Size: ${n}`,
    `Depends: example${n} (= 5.4.0-${n}.${n})`,
    `Filename: pool/main/e/example/${name}_5.4.0-${n}.${n}_amd64.ddeb`,
    `Size: ${20_000_000 + n}`,
    `SHA256: ${hex(n, 64)}`,
    `Build-Ids: ${hex(n, 40)} ${hex(n + 1, 40)}`,
    'Description: debug symbols for an example',
    '',
  ].join('\n')
}

/** Makes a signed apt repository in a directory. `signer` is removed with `end`. */
function makeIndex(directory: string): { source: Source; end(): void } {
  const ends: (() => void)[] = []
  const signer = makeSigner({ teardown: (end: () => void) => void ends.push(end) } as never)
  const folder = join(directory, 'debian/dists/focal')
  mkdirSync(join(folder, 'main/binary-amd64'), { recursive: true })
  const text = Array.from({ length: PACKAGES }, (_, n) => stanzaOf(n)).join('\n')
  const packages = execFileSync('xz', ['-0', '--stdout'], { input: text, maxBuffer: 2 ** 30 })
  writeFileSync(join(folder, 'main/binary-amd64/Packages.xz'), packages)
  const digest = createHash('sha256').update(packages).digest('hex')
  const line = ` ${digest} ${packages.length} main/binary-amd64/Packages.xz`
  writeFileSync(join(folder, 'InRelease'), signer.sign(`Suite: focal\nSHA256:\n${line}\n`))
  const source: Source = {
    id: 'bench',
    distro: 'ubuntu',
    protocol: 'apt',
    keyrings: [signer.keyring],
    components: ['main'],
    versions: { '20.04': [{ url: `file://${directory}/debian`, suite: 'focal' }] },
    architectures: { x86_64: 'amd64' },
    packages: [{ name: 'linux-image-unsigned-(?<uname>[0-9].*)-dbgsym', release: '{uname}' }],
    vmlinux: ['usr/lib/debug/boot/vmlinux-{release}'],
  }
  const end = () => {
    for (const each of ends) each()
  }
  return { source, end }
}

/** Finds the packages of the index. Runs in a separate process. Returns seconds and bytes. */
async function search(directory: string, source: Source): Promise<{ time: number; rss: number }> {
  const [started, cache] = [performance.now(), join(directory, 'cache')]
  const store = await openStore('memory:')
  const { packages, failures } = await findPackages({ store, cache, sources: [source] })
  const time = (performance.now() - started) / 1000
  if (packages.length !== PACKAGES / KERNEL_EVERY) throw new Error(JSON.stringify(failures))
  return { time, rss: process.resourceUsage().maxRSS * 1024 }
}

function benchIndex(directory: string): void {
  const { source, end } = makeIndex(directory)
  try {
    const rows = [['', 'time', 'peak memory']]
    for (const name of ['for the first time', 'again']) {
      const { options, env } = nodeAsStarted()
      const child = [...options, import.meta.filename, 'index', directory, JSON.stringify(source)]
      const { time, rss }: Awaited<ReturnType<typeof search>> = JSON.parse(
        execFileSync(process.execPath, child, { encoding: 'utf8', env }),
      )
      rows.push([name, `${time.toFixed(2)} s`, mib(rss)])
    }
    console.log(`\nan index of ${PACKAGES} packages\n${table(rows)}`)
  } finally {
    end()
  }
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
    benchIndex(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const [from, directory, more] = process.argv.slice(2)
if (from === undefined) await main()
else if (from === 'index')
  console.log(JSON.stringify(await search(directory!, JSON.parse(more!) as Source)))
else if (from === 'snapshot' || from === 'records')
  console.log(JSON.stringify(await ask(await openStore(`file:${directory}`), from)))

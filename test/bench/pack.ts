// npm run bench:pack: sizes and times of deltas between the kernels of a series, against xz -9 and zstd of each kernel. The
// kernels are Debian's own BTF of several series, in .cache/packs; the first run downloads about 1 GB. `-- DIRECTORY` takes
// raw BTF files from there instead: one series for each subdirectory, in the order of their names. Each delta is its own
// zstd frame, and each result is compared byte for byte. Times are CPU, minima of several passes. Then all kernels are put
// into one pack, as `export --profile pack` does, and read out of it: its size against .btf.tar.xz, and times per kernel.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { DeltaChain, encodeDelta } from '../../bpf/index.ts'
import { generate } from '../../generator/index.ts'
import { Pack, type PackSource } from '../../service/pack/pack.ts'
import { makePack } from '../../service/pack/writer.ts'
import {
  Catalog,
  getBlob,
  type KernelFilter,
  openStore,
  packArchive,
  sha256Of,
} from '../../storage/index.ts'
import { recordOf } from '../helpers/test-service.ts'
import { median, table } from './measure.ts'
import { benchStore } from './pack-store.ts'

const FOLDER = resolve(import.meta.dirname, '../../.cache/packs')
const PASSES = 5

interface Series {
  readonly name: string
  /** raw BTF, oldest first */
  readonly kernels: readonly Buffer[]
}

/** Series of Debian, with the number of kernels of each; the first of each is encoded from the series above it. */
const SERIES: readonly (readonly [filter: KernelFilter, count: number])[] = [
  [{ version: '13', arch: 'x86_64', release: '6.12.*+deb13-amd64' }, 14],
  [{ version: '13', arch: 'x86_64', release: '6.12.*+deb13-rt-amd64' }, 3],
  [{ version: '13', arch: 'x86_64', release: '6.12.*+deb13-cloud-amd64' }, 4],
  [{ version: '13', arch: 'x86_64', release: '7.*+deb13-cloud-amd64' }, 4],
  [{ version: '13', arch: 'aarch64', release: '6.12.*+deb13-arm64' }, 3],
  [{ version: '12', arch: 'x86_64', release: '6.1.0-*-amd64' }, 6],
]

async function debianSeries(): Promise<Series[]> {
  mkdirSync(FOLDER, { recursive: true })
  const store = await openStore(`file:${join(FOLDER, 'store')}`)
  const all: Series[] = []
  for (const [filter, count] of SERIES) {
    const listed = async () =>
      [...(await Catalog.open(store)).list({ distro: 'debian', ...filter })].flatMap(
        ({ record }) => (record.btf ? [record.btf.sha256] : []),
      )
    const limit = count - (await listed()).length
    if (limit > 0) {
      console.error(`taking the BTF of debian ${filter.version} ${filter.release}`)
      await generate({
        ...{ store, cache: join(FOLDER, 'indexes'), limit, embedded: true, earlyStop: true },
        filter: { distro: 'debian', ...filter },
      })
    }
    const digests = (await listed()).slice(0, count).reverse()
    const kernels = await Promise.all(digests.map((sha256) => getBlob(store, sha256)))
    all.push({ name: `${filter.version} ${filter.release}`, kernels })
  }
  return all
}

function seriesIn(directory: string): Series[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => {
      const files = readdirSync(join(directory, name)).sort()
      return { name, kernels: files.map((file) => readFileSync(join(directory, name, file))) }
    })
}

function zstd(bytes: Uint8Array): Buffer {
  return zstdCompressSync(bytes, {
    params: {
      [constants.ZSTD_c_compressionLevel]: 19,
      [constants.ZSTD_c_windowLog]: 23,
    },
  })
}

function xz(bytes: Uint8Array): number {
  return execFileSync('xz', ['-9', '-c'], { input: bytes, maxBuffer: 1 << 28 }).length
}

/** Returns a value and the milliseconds of CPU that it took. */
function timed<T>(work: () => T): [T, number] {
  const before = process.cpuUsage()
  const value = work()
  const { user, system } = process.cpuUsage(before)
  return [value, (user + system) / 1000]
}

interface Encoded {
  readonly frame: Buffer
  readonly encode: number
  readonly xz: number
}

/** Encodes a kernel and checks that its delta gives it back. */
function encoded(kernel: Buffer, parent: Buffer | undefined): Encoded {
  const [delta, encode] = timed(() => encodeDelta(kernel, parent))
  const frame = zstd(delta)
  const chain = new DeltaChain(parent)
  chain.apply(zstdDecompressSync(frame))
  if (!kernel.equals(chain.bytes())) throw new Error('the delta does not give the kernel')
  return { frame, encode, xz: xz(kernel) }
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, number) => all + number, 0)

const directory = process.argv[2]
if (directory && existsSync(join(directory, 'kernels'))) {
  const [, count] = /^--archives=(\d+)$/.exec(process.argv[3] ?? '') ?? []
  await benchStore(directory, count ? Number(count) : Number.POSITIVE_INFINITY)
  process.exit()
}
const series = directory ? seriesIn(directory) : await debianSeries()
const sizes = [['series', 'kernels', 'first', 'next, median', 'next, mean', 'xz -9', 'ratio']]
const lengths: number[] = []
const originals: number[] = []
const encodings: number[] = []
let longest: { kernels: readonly Buffer[]; frames: Buffer[] } = { kernels: [], frames: [] }
let above: Buffer | undefined
for (const { name, kernels } of series) {
  if (kernels.length === 0) continue
  const all = kernels.map((kernel, i) => encoded(kernel, i > 0 ? kernels[i - 1] : above))
  const [first = 0, ...next] = all.map(({ frame }) => frame.length)
  const originalsHere = all.map((one) => one.xz)
  sizes.push([
    ...[name, String(kernels.length), `${first}${above ? '' : ' (root)'}`],
    ...(next.length > 0 ? [String(median(next)), (sum(next) / next.length).toFixed(0)] : ['', '']),
    ...[String(Math.round(sum(originalsHere) / kernels.length))],
    ((first + sum(next)) / sum(originalsHere)).toFixed(4),
  ])
  lengths.push(first, ...next)
  originals.push(...originalsHere)
  encodings.push(...all.map(({ encode }) => encode))
  above ??= kernels.at(-1)
  if (kernels.length > longest.kernels.length) {
    longest = { kernels, frames: all.map(({ frame }) => frame) }
  }
}
const total = sum(lengths) / sum(originals)
sizes.push(['all', String(lengths.length), '', '', '', String(sum(originals)), total.toFixed(4)])
console.log(`${table(sizes)}\n`)

/** Milliseconds of CPU for the parts of reading the longest series. */
function readings({ kernels, frames }: typeof longest) {
  const root = encodeDelta(kernels[0]!)
  const deltas = frames.map((frame, i) => (i === 0 ? root : zstdDecompressSync(frame)))
  const [base, baseTime] = timed(() => {
    const chain = new DeltaChain()
    chain.apply(root)
    return chain
  })
  const steps = deltas.slice(1).map((delta) => timed(() => base.apply(delta))[1])
  const [, bytes] = timed(() => base.bytes())
  const [, sequence] = timed(() => {
    const chain = new DeltaChain()
    for (const delta of deltas) {
      chain.apply(delta)
      chain.bytes()
    }
  })
  return { root: baseTime, step: median(steps), bytes, sequence: sequence / kernels.length }
}

const passes = Array.from({ length: PASSES }, () => readings(longest))
const least = (part: keyof ReturnType<typeof readings>) =>
  Math.min(...passes.map((pass) => pass[part])).toFixed(1)
console.log(
  table([
    ['CPU, milliseconds', ''],
    ['encode a kernel, median', median(encodings).toFixed(0)],
    ['encode a kernel, least', Math.min(...encodings).toFixed(0)],
    ['open a root', least('root')],
    ['apply a delta in a chain', least('step')],
    ['make the bytes', least('bytes')],
    [`read ${longest.kernels.length} kernels in sequence, each`, least('sequence')],
  ]),
)

/** Packs all series, and reads each kernel out of the pack, alone and in sequence. */
async function packed(): Promise<void> {
  const raws = new Map<string, Buffer>()
  const records = series.flatMap(({ name, kernels }, s) =>
    kernels.map((raw, n) => {
      const sha256 = sha256Of(raw)
      raws.set(sha256, raw)
      const arch = name.includes('arm64') ? 'aarch64' : 'x86_64'
      const kernel = { distro: 'debian', version: String(s), arch, release: `6.1.0-${n}` }
      const facts = { types: 1, byteOrder: 'little', pointerSize: 8 } as const
      const btf = { ...facts, kinds: ['INT'], sha256, size: raw.length }
      return { ...recordOf(kernel), btf }
    }),
  )
  const before = process.cpuUsage()
  const content = await makePack(
    records,
    async ({ btf }) => raws.get(btf.sha256)!,
    () => false,
  )
  const { user, system } = process.cpuUsage(before)
  const bytes = Buffer.concat(content.pieces)
  const source: PackSource = {
    read: (start, end, take) =>
      take(
        (async function* () {
          yield bytes.subarray(start, end)
        })(),
      ),
  }
  const pack = await Pack.open(source)
  const { members } = pack.index
  const alone: number[] = []
  for (const { sha256 } of members) {
    let least = Infinity
    for (let pass = 0; pass < 2; pass++) {
      const start = process.cpuUsage()
      await pack.read(sha256)
      const used = process.cpuUsage(start)
      least = Math.min(least, (used.user + used.system) / 1000)
    }
    alone.push(least)
  }
  const start = process.cpuUsage()
  for await (const { result } of pack.readAll()) if (result instanceof Error) throw result
  const used = process.cpuUsage(start)
  let archives = 0
  for (const raw of raws.values()) archives += (await packArchive('kernel', raw)).length
  console.log(
    table([
      ['one pack', ''],
      ['kernels', String(members.length)],
      ['bytes', String(bytes.length)],
      ['bytes of .btf.tar.xz', String(archives)],
      ['ratio', (bytes.length / archives).toFixed(4)],
      ['roots', String(members.filter(({ parent }) => parent === undefined).length)],
      ['CPU ms: pack a kernel', ((user + system) / 1000 / members.length).toFixed(0)],
      ['CPU ms: read a kernel, median', median(alone).toFixed(0)],
      ['CPU ms: read a kernel, most', Math.max(...alone).toFixed(0)],
      [
        'CPU ms: read all in sequence, each',
        ((used.user + used.system) / 1000 / members.length).toFixed(1),
      ],
    ]),
  )
}

console.log('')
await packed()

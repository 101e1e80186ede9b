// npm run bench:bpf: minimizes the BTF of many kernels in a store for one object, in one process, against a loop over
// `bpftool gen min_core_btf` on raw files. Also checks the object on them; both in a warm process, minimizing in a cold one
// too. Also measures the lower bound (floor.ts), and parsing one BTF against reading each of its words. Results are ratios
// within one run, medians of several runs. The kernels are those of kernels.ts, and the little-endian ones of the long
// tests; the first run downloads them and takes minutes. `npm run bench:bpf -- many` is another benchmark: many.ts.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseBtf } from '../../bpf/index.ts'
import { ALL, sweep, withPool } from '../../service/cli/for-each-kernel.ts'
import type { ChosenKernel } from '../../service/cli/input.ts'
import {
  type BlobInfo,
  Catalog,
  getBlob,
  openStore,
  putBlob,
  readCompressedBlob,
} from '../../storage/index.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { kernels } from '../long/kernels.ts'
import { floor, touch } from './floor.ts'
import { debianKernels } from './kernels.ts'
import { many } from './many.ts'
import { measure, median, mib, nodeAsStarted, table } from './measure.ts'

const RUNS = 5
/** Passes over all kernels per process. The first WARM passes do not count, since V8 still compiles. */
const PASSES = 8
const WARM = 3
/** One of libbpf-tools: 30 relocations with 6 root types. */
const OBJECT = /^biosnoop@/

const VERBS = ['minimize', 'check', 'floor'] as const
type Verb = (typeof VERBS)[number]

/** Returns the seconds of each pass over all kernels of the store. Runs in a separate process. */
async function ours(verb: Verb, directory: string): Promise<number[]> {
  const store = await openStore(`file:${directory}/store`)
  const blobs: BlobInfo[] = JSON.parse(readFileSync(join(directory, 'blobs'), 'utf8'))
  const kernels = blobs.map(({ sha256, size }) => {
    const read = async () => ({ frame: await readCompressedBlob(store, sha256), sha256, size })
    return { name: sha256, read }
  })
  if (verb !== 'floor') return await asCommands(verb, directory, kernels)
  return await floor(await Promise.all(kernels.map(({ read }) => read())), ALL, PASSES)
}

/** Runs the passes as the `btfmill` command does. */
async function asCommands(
  verb: 'minimize' | 'check',
  directory: string,
  kernels: readonly ChosenKernel[],
): Promise<number[]> {
  const objects = [readFileSync(join(directory, 'object.o'))]
  return await withPool(ALL, async (pool) => {
    await Promise.all(Array.from({ length: ALL }, () => pool.run('open', { objects })))
    const times: number[] = []
    for (let pass = 0; pass < PASSES; pass++) {
      const started = performance.now()
      for await (const { kernel, ...swept } of sweep(pool, verb, kernels, objects)) {
        if ('error' in swept) throw new Error(`${kernel.name}: ${swept.error.message}`)
        if (swept.value instanceof Uint8Array)
          writeFileSync(join(directory, 'out', kernel.name), swept.value)
      }
      times.push((performance.now() - started) / 1000)
    }
    return times
  })
}

/** Results of one run, in seconds. */
interface Run extends Record<Verb, number> {
  readonly first: number
  readonly loop: number
  readonly xargs: number
  readonly touch: number
  readonly open: number
}

function seconds(work: () => void): number {
  const started = performance.now()
  work()
  return (performance.now() - started) / 1000
}

/** Times parsing against reading each word, in seconds. Warm, since a process that parses one BTF parses many. */
function opening(bytes: Uint8Array): { touch: number; open: number } {
  let sum = 0
  const times = (work: () => number) => {
    const once = () => {
      sum ^= work()
    }
    return median(Array.from({ length: 40 }, () => seconds(once)).slice(10))
  }
  const result = { touch: times(() => touch(bytes)), open: times(() => parseBtf(bytes).typeCount) }
  if (sum === 1) console.log()
  return result
}

/** Yields the raw BTF of all kernels. */
async function* everyBtf(): AsyncGenerator<Buffer> {
  const store = await debianKernels()
  for (const { record } of (await Catalog.open(store)).list())
    if (record.btf) yield getBlob(store, record.btf.sha256)
  for (const { path } of await kernels()) yield readFileSync(path)
}

/**
 * Writes the kernels' raw BTF as files and as blobs of a store, the list of digests, and an object; makes a folder for
 * output. Returns one BTF, and their number.
 */
async function prepare(directory: string): Promise<{ bytes: Buffer; count: number }> {
  const store = await openStore(`file:${directory}/store`)
  mkdirSync(join(directory, 'files'))
  mkdirSync(join(directory, 'out'))
  const blobs = new Map<string, BlobInfo>()
  let last: Buffer | undefined
  for await (const bytes of everyBtf()) {
    if (parseBtf(bytes).byteOrder !== 'little') continue
    const blob = await putBlob(store, bytes)
    blobs.set(blob.sha256, blob)
    writeFileSync(join(directory, 'files', blob.sha256), bytes)
    last = bytes
  }
  writeFileSync(join(directory, 'blobs'), JSON.stringify([...blobs.values()]))
  const object = (await objectsOfOthers()).find((path) => OBJECT.test(basename(path)))
  if (object === undefined) throw new Error('libbpf-tools has no biosnoop')
  writeFileSync(join(directory, 'object.o'), readFileSync(object))
  return { bytes: last!, count: blobs.size }
}

const LOOP =
  'cd files && for n in *; do bpftool gen min_core_btf $n ../out/$n ../object.o || exit 1; done'
const XARGS = 'ls files | xargs -P2 -I@ bpftool gen min_core_btf files/@ out/@ object.o'

function inChild(verb: Verb, directory: string): number[] {
  const { options, env } = nodeAsStarted()
  const child = [...options, import.meta.filename, verb, directory]
  return JSON.parse(execFileSync(process.execPath, child, { encoding: 'utf8', env }))
}

async function main(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-bench-'))
  try {
    const { bytes, count } = await prepare(directory)
    const runs: Run[] = []
    for (let run = 1; run <= RUNS; run++) {
      const loop = await measure(['sh', '-c', LOOP], { cwd: directory })
      const xargs = await measure(['sh', '-c', XARGS], { cwd: directory })
      const [minimize, check, least] = VERBS.map((verb) => inChild(verb, directory))
      const warm = (passes: readonly number[]) => median(passes.slice(WARM))
      const passes = {
        first: minimize![0]!,
        minimize: warm(minimize!),
        check: warm(check!),
        floor: warm(least!),
      }
      runs.push({ loop: loop.wall, xargs: xargs.wall, ...passes, ...opening(bytes) })
      console.error(`run ${run}/${RUNS}`, runs.at(-1))
    }
    const row = (name: string, a: keyof Run, b: keyof Run, most?: number) => {
      const ratios = runs.map((run) => run[a] / run[b])
      const cells = [a, b].map(
        (of) => `${(median(runs.map((run) => run[of])) * 1000).toFixed(1)} ms`,
      )
      return [name, ...cells, median(ratios).toFixed(2), most === undefined ? '' : `≤ ${most}`]
    }
    const rows = [
      ['', 'ours', 'theirs', 'ratio', 'wanted'],
      row('minimizing, against a loop over bpftool', 'minimize', 'loop', 0.3),
      row('minimizing, against xargs -P2 bpftool', 'minimize', 'xargs', 0.5),
      row('lower bound, against that loop', 'floor', 'loop'),
      row('lower bound, against xargs', 'floor', 'xargs'),
      row('cold, against that loop', 'first', 'loop'),
      row('cold, against xargs -P2 bpftool', 'first', 'xargs'),
      row('checking, against minimizing', 'check', 'minimize', 1),
      row(`parsing ${mib(bytes.length)}, against reading each word`, 'open', 'touch', 3),
    ]
    console.log(`${count} kernels, medians of ${RUNS} runs\n\n${table(rows)}`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const [verb, directory] = process.argv.slice(2)
if (verb === 'many') await many()
else if (directory === undefined) await main()
else console.log(JSON.stringify(await ours(verb as Verb, directory)))

// npm run bench:generate [-- PACKAGE.deb]: the hubs' recipe and `btfmill generate`, in turn, on one package on disk
// (default: the newest Debian 12 686-pae package, kept in .cache/bench). btfmill hashes the whole package; the recipe
// checks nothing.
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { type Cost, measure, median, mib, nodeAsStarted, table } from './measure.ts'
import { newestPackage } from './package.ts'

const RUNS = 3
const checkout = resolve(import.meta.dirname, '../..')
const scratchRoot = join(checkout, '.cache/bench')

/** Reports Node's own peak memory. GNU time reports only the largest process, which is pahole. */
const REPORT_NODE_PEAK = `data:text/javascript,${encodeURIComponent(
  `import { appendFileSync } from 'node:fs'
process.on('exit', () => appendFileSync(process.env.NODE_PEAK_FILE, process.resourceUsage().maxRSS * 1024 + '\\n'))`,
)}`

const inEmptyDirectory = async <T>(run: (directory: string) => Promise<T>): Promise<T> => {
  mkdirSync(scratchRoot, { recursive: true })
  const directory = mkdtempSync(join(scratchRoot, 'run-'))
  try {
    return await run(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const recipe = (file: string): Promise<Cost & { vmlinux: number }> =>
  inEmptyDirectory(async (cwd) => {
    const cost = await measure(['sh', join(import.meta.dirname, 'recipe.sh'), file], { cwd })
    const [vmlinux] = globSync('usr/lib/debug/boot/vmlinux-*', { cwd })
    return { ...cost, vmlinux: statSync(join(cwd, vmlinux!)).size }
  })

const ours = (file: string): Promise<Cost & { nodePeak: number }> =>
  inEmptyDirectory(async (cwd) => {
    const peaks = join(cwd, 'peak')
    const main = join(checkout, 'service/cli/main.ts')
    const { options, env } = nodeAsStarted()
    const cost = await measure(
      [
        process.execPath,
        ...options,
        '--import',
        REPORT_NODE_PEAK,
        main,
        'generate',
        '--distro',
        'debian',
        '--distro-version',
        '12',
        '--from',
        'debug',
      ].concat(['--store', `file:${cwd}/store`, '--scratch', join(cwd, 'scratch'), file]) as [
        string,
        ...string[],
      ],
      { cwd, env: { ...env, NODE_PEAK_FILE: peaks } },
    )
    return {
      ...cost,
      nodePeak: Math.max(...readFileSync(peaks, 'utf8').trim().split('\n').map(Number)),
    }
  })

const given = process.argv[2]
const file = given ? resolve(given) : await newestPackage(scratchRoot)
if (!existsSync(file)) throw new Error(`${file}: no such file`)

const theirs: Awaited<ReturnType<typeof recipe>>[] = []
const mine: Awaited<ReturnType<typeof ours>>[] = []
for (let run = 1; run <= RUNS; run++) {
  theirs.push(await recipe(file))
  console.error(`run ${run}/${RUNS}: recipe ${theirs.at(-1)!.wall.toFixed(1)} s`)
  mine.push(await ours(file))
  console.error(`run ${run}/${RUNS}: btfmill ${mine.at(-1)!.wall.toFixed(1)} s`)
}

const row = (
  name: string,
  of: (cost: Cost) => number,
  show: (value: number) => string,
): string[] => {
  const [a, b] = [median(theirs.map(of)), median(mine.map(of))]
  return [name, show(a), show(b), (b / a).toFixed(2)]
}
const seconds = (value: number): string => `${value.toFixed(1)} s`
const vmlinux = theirs[0]!.vmlinux
const written = median(mine.map((cost) => cost.written))
console.log(
  [
    `${file.split('/').at(-1)}, ${mib(statSync(file).size)}, vmlinux ${mib(vmlinux)}; medians of ${RUNS}`,
    '',
    table([
      ['', 'recipe', 'btfmill', 'ratio'],
      row('wall time', (cost) => cost.wall, seconds),
      row('CPU time', (cost) => cost.cpu, seconds),
      row('peak memory, largest process', (cost) => cost.peak, mib),
      row('bytes written', (cost) => cost.written, mib),
    ]),
    '',
    `btfmill: Node's own peak memory ${mib(median(mine.map((cost) => cost.nodePeak)))}; ` +
      `bytes written / vmlinux ${(written / vmlinux).toFixed(3)}`,
  ].join('\n'),
)

// npm run bench:throughput: generates six Debian kernels without BTF from packages on disk: with `btfmill generate` one
// after the other and two at a time, and with the hubs' recipe two at a time under xargs, in turn. The packages, 2.5 GB,
// are downloaded once and kept in .cache/bench. btfmill hashes every byte of each package; the recipe checks nothing.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { type Cost, measure, median, mib, nodeAsStarted, table } from './measure.ts'
import { newestPackages, type Wanted } from './package.ts'

const RUNS = 3
/** Wanted ratios. */
const TARGETS = { alone: 1.7, recipe: 3 }
const checkout = resolve(import.meta.dirname, '../..')
const folder = join(checkout, '.cache/bench')

const { options, env } = nodeAsStarted()
const debian = (version: string, arch: string, name: string): Wanted => ({
  kernel: { distro: 'debian', version, arch },
  name: `linux-image-${name}-dbg`,
})
const PACKAGES: readonly (readonly [wanted: Wanted, count: number])[] = [
  [debian('12', 's390x', '6.1.0-*-s390x'), 2],
  [debian('12', 'armv5tel', '6.1.0-*-rpi'), 2],
  [debian('13', 's390x', '6.12.*-s390x'), 1],
  [debian('13', 'armv5tel', '6.12.*-rpi'), 1],
]

const paths: string[] = []
for (const [wanted, count] of PACKAGES) paths.push(...(await newestPackages(folder, wanted, count)))

/** The cost of one way, and the CPU seconds of other processes. With more than a few of those, discard the result. */
type Measured = Cost & { others: number }

/** Returns the seconds that this machine's cores have been busy. */
const busy = (): number =>
  cpus().reduce((sum, { times: { user, nice, sys, irq } }) => sum + user + nice + sys + irq, 0) /
  1000

/** Runs a command in an empty directory. It must make one file per package that matches `made`. */
async function run(
  command: readonly [string, ...string[]],
  made: RegExp,
  input = '',
): Promise<Measured> {
  mkdirSync(folder, { recursive: true })
  const cwd = mkdtempSync(join(folder, 'run-'))
  try {
    writeFileSync(join(cwd, 'input'), input)
    const before = busy()
    const cost = await measure(command, { cwd, env })
    const others = Math.max(0, busy() - before - cost.cpu)
    const files = readdirSync(cwd, { recursive: true, encoding: 'utf8' })
    const count = files.filter((file) => made.test(file)).length
    if (count !== paths.length) throw new Error(`${command[0]} made ${count} of ${paths.length}`)
    return { ...cost, others }
  } finally {
    rmSync(cwd, { recursive: true, force: true })
  }
}

const MAIN = join(checkout, 'service/cli/main.ts')
const KERNEL = ['--distro', 'debian', '--distro-version', '12', '--from', 'debug']

const ours = (jobs: number) =>
  run(
    [
      ...([process.execPath, ...options, MAIN, 'generate', '--json', ...KERNEL] as [
        string,
        ...string[],
      ]),
      ...['--jobs', String(jobs), '--store', 'file:store', '--scratch', 'scratch', ...paths],
    ],
    /^store\/kernels\/.*\.json$/,
  )

const ONE = 'mkdir "$(basename "$2")" && cd "$(basename "$2")" && exec sh "$1" "$2"'
const recipe = () =>
  run(
    [
      ...(['xargs', '--arg-file=input', '--max-procs=2', '--max-args=1'] as [string, ...string[]]),
      ...['sh', '-c', ONE, 'sh', join(import.meta.dirname, 'recipe.sh')],
    ],
    /\.btf\.tar\.xz$/,
    `${paths.join('\n')}\n`,
  )

const WAYS = {
  'one after the other': () => ours(1),
  'two at a time': () => ours(2),
  'recipe, two at a time': recipe,
} as const
type Way = keyof typeof WAYS

const costs = Object.fromEntries(
  Object.keys(WAYS).map((way) => [way, [] as Measured[]]),
) as unknown as Record<Way, Measured[]>
for (let round = 1; round <= RUNS; round++) {
  for (const [way, once] of Object.entries(WAYS) as [Way, () => Promise<Measured>][]) {
    costs[way].push(await once())
    console.error(`run ${round}/${RUNS}: ${way} ${costs[way].at(-1)!.wall.toFixed(1)} s`)
  }
}

const of = (what: 'wall' | 'cpu' | 'others') => (way: Way) =>
  median(costs[way].map((cost) => cost[what]))
const [wall, cpu, others] = [of('wall'), of('cpu'), of('others')]
const together = wall('two at a time')
const row = (way: Way): string[] => [
  way,
  `${wall(way).toFixed(1)} s`,
  `${((paths.length * 3600) / wall(way)).toFixed(0)}`,
  `${cpu(way).toFixed(1)} s`,
  (cpu(way) / wall(way)).toFixed(2),
  `${others(way).toFixed(1)} s`,
  (wall(way) / together).toFixed(2),
]
const size = paths.reduce((sum, path) => sum + statSync(path).size, 0)
console.log(
  [
    `${paths.length} kernels, packages of ${mib(size)}; medians of ${RUNS}`,
    '',
    table([
      ['', 'wall time', 'kernels/h', 'CPU time', 'cores busy', 'others', 'against two at a time'],
      ...(Object.keys(WAYS) as Way[]).map(row),
    ]),
    '',
    `one after the other already keeps ${(cpu('one after the other') / wall('one after the other')).toFixed(2)} of ${cpus().length} cores busy`,
    `wanted: at least ${TARGETS.alone} times one after the other, at least ${TARGETS.recipe} times the recipe`,
  ].join('\n'),
)

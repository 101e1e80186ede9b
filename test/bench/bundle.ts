// npm run bench:bundle: bundles of real Debian kernels of three series, against the archives of a BTFHub clone for the same
// kernels. Measures sizes, complete and minimized; the time to export a minimized bundle, against the hubs' shell loop;
// memory with three times the kernels; and the time to the service's first byte. The kernels are those of kernels.ts; the
// archives are kept in .cache/bench/bundle.
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import type { AddressInfo } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { buildApp } from '../../service/index.ts'
import {
  archivePath,
  Catalog,
  getBlob,
  openStore,
  packArchive,
  putRecord,
  type Store,
} from '../../storage/index.ts'
import { debianKernels, KERNELS_STORE } from './kernels.ts'
import { measure, median, mib, nodeAsStarted, table } from './measure.ts'

const RUNS = 3
/** Copies of each kernel for the memory rows. With FEW, the heap has already reached its size. */
const [FEW, MANY] = [20, 60]
const CHECKOUT = resolve(import.meta.dirname, '../..')
const FOLDER = join(CHECKOUT, '.cache/bench/bundle')
const TREE = join(FOLDER, 'tree')

async function prepare(): Promise<Store> {
  const store = await debianKernels()
  for (const { record } of (await Catalog.publish(store)).list()) {
    const file = join(TREE, archivePath(record.kernel))
    if (!record.btf || existsSync(file)) continue
    mkdirSync(dirname(file), { recursive: true })
    const raw = await getBlob(store, record.btf.sha256)
    writeFileSync(file, await packArchive(record.kernel.release, raw))
  }
  return store
}

const sizeOf = (path: string): number => statSync(path).size

const command = (...args: string[]): [string, ...string[]] => [
  process.execPath,
  ...nodeAsStarted().options,
  join(CHECKOUT, 'service/cli/main.ts'),
  'export',
  ...args,
]

/** Returns the bytes of an archive's members if each is packed as a separate `.tar.xz`. */
async function packedApart(directory: string, archive: string): Promise<number> {
  const root = mkdtempSync(join(directory, 'apart-'))
  execFileSync('tar', ['-xf', archive, '-C', root])
  const files = execFileSync('find', [root, '-name', '*.btf', '-printf', '%p\n'], {
    encoding: 'utf8',
  })
  let sum = 0
  for (const path of files.trim().split('\n'))
    sum += (await packArchive(path.split('/').at(-1)!.slice(0, -4), readFileSync(path))).length
  return sum
}

/** Makes a store with each kernel under `times` names. Similar kernels are far apart in it. */
async function manyfold(store: Store, directory: string, times: number): Promise<string> {
  const path = join(directory, `times-${times}`)
  execFileSync('cp', ['-r', KERNELS_STORE.slice('file:'.length), path])
  const more = await openStore(`file:${path}`)
  for (const { record } of (await Catalog.open(store)).list())
    for (let n = 1; n < times; n++) {
      const version = `${record.kernel.version}.${n}`
      const kernel = { ...record.kernel, distro: `d${n}`, version }
      await putRecord(more, { ...record, kernel })
    }
  await Catalog.publish(more)
  return `file:${path}`
}

/** Returns the milliseconds from a request to the first byte of a bundle of all kernels. */
async function firstByte(url: string, query: string, object?: string): Promise<number> {
  const store = await openStore(url)
  const app = await buildApp({ store, catalog: await Catalog.openSnapshot(store) })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const client = new AbortController()
  try {
    const body = new FormData()
    if (object) body.append('object', new Blob([readFileSync(object)]), 'object.o')
    const started = performance.now()
    const answer = await fetch(`http://127.0.0.1:${port}/v1/bundles?${query}`, {
      method: 'POST',
      ...(object && { body }),
      signal: client.signal,
    })
    if (!answer.ok) throw new Error(await answer.text())
    await answer.body!.getReader().read()
    return performance.now() - started
  } finally {
    client.abort()
    await app.close()
  }
}

async function main(directory: string): Promise<void> {
  const store = await prepare()
  const object = join(directory, 'object.o')
  const source = join(import.meta.dirname, 'bundle.bpf.c')
  execFileSync('clang', ['--target=bpfel', '-g', '-O2', '-mcpu=v3', '-c', source, '-o', object])
  const records = [...(await Catalog.open(store)).list()].filter(({ record }) => record.btf)
  const sum = records.reduce(
    (all, { record }) => all + sizeOf(join(TREE, archivePath(record.kernel))),
    0,
  )

  const at = (name: string) => join(directory, name)
  const make = (name: string, ...args: string[]) =>
    measure(command('--store', KERNELS_STORE, '-o', at(name), '--profile', ...args), {
      cwd: directory,
      env: nodeAsStarted().env,
    })
  const whole = await make('whole.xz', 'tree')
  execFileSync('tar', ['-tJf', at('whole.xz')])
  execFileSync(process.execPath, [...command('--verify', at('whole.xz')).slice(1)])
  const zstd = await make('whole.zst', 'tree', '--zstd')
  execFileSync('zstd', ['-tq', at('whole.zst')])
  await make('least.xz', 'tree', '--object', object)
  const apart = await packedApart(directory, at('least.xz'))
  await make('least.bcc', 'bcc', '--object', object)
  await make('least.ig', 'inspektor-gadget', '--object', object)
  await make('least.dd', 'datadog', '--arch', 'x86_64', '--object', object)
  const size = (what: string, bytes: number, wanted = '') => [
    what,
    String(bytes),
    (bytes / sum).toFixed(5),
    (bytes / apart).toFixed(3),
    wanted,
  ]
  console.log(`${records.length} kernels\n`)
  console.log(
    table([
      ['', 'bytes', 'of the sum', 'of separate members', 'wanted'],
      size('sum of .btf.tar.xz, as in a BTFHub clone', sum),
      size(
        `tree, complete, xz (${whole.wall.toFixed(0)} s)`,
        sizeOf(at('whole.xz')),
        '≤ 0.55 of the sum',
      ),
      size(`tree, complete, zstd (${zstd.wall.toFixed(0)} s)`, sizeOf(at('whole.zst'))),
      size('minimized members, each as .tar.xz', apart),
      size(
        'tree, minimized, with manifest',
        sizeOf(at('least.xz')),
        '≤ 0.002 of the sum, ≤ 0.25 of separate members',
      ),
      size('bcc, minimized', sizeOf(at('least.bcc'))),
      size('inspektor-gadget, minimized', sizeOf(at('least.ig'))),
      size('datadog, minimized, x86_64', sizeOf(at('least.dd'))),
    ]),
  )

  const [ours, theirs]: number[][] = [[], []]
  for (let run = 1; run <= RUNS; run++) {
    ours!.push((await make('timed.gz', 'bcc', '--object', object)).wall)
    const cwd = mkdtempSync(join(directory, 'loop-'))
    const loop = [
      'sh',
      join(import.meta.dirname, 'btfgen.sh'),
      TREE,
      object,
      at('loop.tar.gz'),
    ] as const
    theirs!.push((await measure([...loop], { cwd })).wall)
    console.error(`run ${run}/${RUNS}: ${ours!.at(-1)} s, ${theirs!.at(-1)} s`)
  }
  const [mine, loop] = [median(ours!), median(theirs!)]
  const many = await manyfold(store, directory, FEW)
  const evenMore = await manyfold(store, directory, MANY)
  const peak = async (url: string, ...args: string[]) =>
    (
      await measure(command('--store', url, '-o', at('peak'), '--profile', ...args), {
        cwd: directory,
        env: nodeAsStarted().env,
      })
    ).peak
  const minimized = ['bcc', '--object', object]
  const [few, more] = [await peak(many, ...minimized), await peak(evenMore, ...minimized)]
  const flow = [
    await firstByte(many, 'profile=tree'),
    await firstByte(many, 'profile=tree', object),
    await firstByte(many, 'profile=bcc', object),
    await firstByte(many, 'profile=btfhub'),
  ].map((ms) => `${ms.toFixed(0)} ms`)
  console.log(
    `\n${table([
      ['', 'ours', 'theirs', 'ratio', 'wanted'],
      [
        `exporting minimized, against the shell loop`,
        `${mine.toFixed(1)} s`,
        `${loop.toFixed(1)} s`,
        median(ours!.map((wall, run) => wall / theirs![run]!)).toFixed(2),
        '≤ 0.33',
      ],
      [
        `memory with ${records.length * MANY} kernels, against ${records.length * FEW}`,
        mib(more),
        mib(few),
        (more / few).toFixed(2),
        '',
      ],
    ])}\n\nfirst byte of ${records.length * FEW} kernels: tree ${flow[0]}, minimized ${flow[1]}, bcc minimized ${flow[2]}, btfhub ${flow[3]}`,
  )
}

mkdirSync(join(CHECKOUT, '.cache/bench'), { recursive: true })
const directory = mkdtempSync(join(CHECKOUT, '.cache/bench/run-'))
try {
  await main(directory)
} finally {
  rmSync(directory, { recursive: true, force: true })
}

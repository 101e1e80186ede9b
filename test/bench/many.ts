// npm run bench:bpf -- many: one object over a hundred real kernels of many series, as a user starts it: `btfmill minimize`
// and `btfmill check` from the command line, cold, and the same requests to a service that runs already, against a loop
// over `bpftool gen min_core_btf` on raw files. The store has its index, as a service or `btfmill index` makes it. Each
// request has an object that the service has not seen, since it keeps results. Medians of several runs. The first run
// downloads the kernels.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { Test } from 'tap'
import { request } from 'undici'
import { Catalog, getBlob } from '../../storage/index.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { serve } from '../helpers/serve-process.ts'
import { debianKernels, KERNELS_STORE } from './kernels.ts'
import { measure, median, nodeAsStarted, table } from './measure.ts'

const RUNS = 3
/** Kernels per series. */
const EACH = 6
const OBJECT = /^biosnoop@/
const LOOP =
  'cd files && for n in *; do bpftool gen min_core_btf $n ../out/$n ../object.o || exit 1; done'
const MAIN = join(import.meta.dirname, '../../service/cli/main.ts')

/** Writes the raw BTF of all kernels as files, and the object. Returns the object and the number of kernels. */
async function prepare(directory: string): Promise<{ object: Buffer; count: number }> {
  const store = await debianKernels(EACH)
  for (const folder of ['files', 'out', 'ours']) mkdirSync(join(directory, folder))
  const records = [...(await Catalog.open(store)).list()].filter(({ record }) => record.btf)
  for (const { record } of records)
    writeFileSync(
      join(directory, 'files', `${record.kernel.arch}-${record.kernel.release}`),
      await getBlob(store, record.btf!.sha256),
    )
  const path = (await objectsOfOthers()).find((path) => OBJECT.test(basename(path)))
  if (path === undefined) throw new Error('libbpf-tools has no biosnoop')
  const object = readFileSync(path)
  writeFileSync(join(directory, 'object.o'), object)
  return { object, count: records.length }
}

/** Sends an object for all kernels, and reads the answer. Returns the seconds. */
async function ask(url: string, bytes: Buffer): Promise<number> {
  const started = performance.now()
  const body = new FormData()
  body.append('object', new Blob([Buffer.from(bytes)]), 'object.o')
  const { statusCode, body: answer } = await request(url, { method: 'POST', body: body as never })
  const text = await answer.text()
  if (statusCode !== 200 || text.includes('"error"'))
    throw new Error(`${url}: ${statusCode} ${text.slice(0, 300)}`)
  return (performance.now() - started) / 1000
}

/** Seconds. */
type Run = Record<'loop' | 'minimize' | 'check' | 'servedMinimize' | 'servedCheck', number>

export async function many(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-bench-'))
  const ends: (() => unknown)[] = [() => rmSync(directory, { recursive: true })]
  const t = { teardown: (end: () => unknown) => ends.unshift(end) } as Pick<Test, 'teardown'>
  try {
    const { object, count } = await prepare(directory)
    const { options, env } = nodeAsStarted()
    // `check` ends with 1 or 3 where a kernel of the store does not do
    const ends = 'status=0; "$@" || status=$?; [ $status -ne 2 ]'
    const command = async (...args: string[]) => {
      const words = [process.execPath, ...options, MAIN, ...args, '--store', KERNELS_STORE]
      return await measure(['sh', '-c', ends, 'sh', ...words], { cwd: directory, env })
    }
    await command('index')
    const { url } = await serve(t as Test, ['--store', KERNELS_STORE], nodeAsStarted())
    let salt = 0
    const fresh = () => Buffer.concat([object, Buffer.from(`\0${salt++}`)])
    for (const verb of ['minimize', 'check']) await ask(`${url}/v1/${verb}`, fresh())
    const runs: Run[] = []
    for (let run = 1; run <= RUNS; run++) {
      const loop = await measure(['sh', '-c', LOOP], { cwd: directory })
      const minimize = await command('minimize', 'object.o', '-o', 'ours')
      const check = await command('check', 'object.o')
      const served = {
        minimize: await ask(`${url}/v1/minimize`, fresh()),
        check: await ask(`${url}/v1/check`, fresh()),
      }
      const times = { loop: loop.wall, minimize: minimize.wall, check: check.wall }
      runs.push({ ...times, servedMinimize: served.minimize, servedCheck: served.check })
      console.error(`run ${run}/${RUNS}`, runs.at(-1))
    }
    const row = (name: string, key: keyof Run, most: number) => [
      name,
      ...[key, 'loop' as const].map((of) => `${median(runs.map((run) => run[of])).toFixed(2)} s`),
      median(runs.map((run) => run[key] / run.loop)).toFixed(2),
      `≤ ${most}`,
    ]
    const rows = [
      ['', 'ours', 'bpftool', 'ratio', 'wanted'],
      row('minimize, from the command line', 'minimize', 0.5),
      row('check, from the command line', 'check', 0.5),
      row('minimize, in a service', 'servedMinimize', 0.15),
      row('check, in a service', 'servedCheck', 0.15),
    ]
    console.log(`${count} kernels, medians of ${RUNS} runs\n\n${table(rows)}`)
  } finally {
    for (const end of ends) await end()
  }
}

import { basename } from 'node:path'
import { getSystemErrorMap } from 'node:util'
import {
  explainNoSource,
  type ObjectProof,
  type Proof,
  prove,
  readLoaderReport,
  readSources,
} from '../../generator/index.ts'
import { type BuildRecord, Catalog, getBlob, openStore } from '../../storage/index.ts'
import { findBuilds, selectBuild } from '../kernel/lookup.ts'
import { nameOf } from '../kernel/name.ts'
import { findNamed } from '../kernel/named.ts'
import {
  type CommonOptions,
  checkReadable,
  isFile,
  keyDirectories,
  openKernel,
  unknownSource,
} from './input.ts'
import { counted, printable } from './output.ts'
import { stopOnSignals } from './signals.ts'

interface ProveCommandOptions extends CommonOptions {
  kernel: string
  btf?: string
  attach?: boolean
  allPrograms?: boolean
  sizeMaps?: boolean
  command?: string
  timeout: number
  cache?: string
  source?: string[]
  sources: string
  keys: string
  mirror: string
}

/**
 * `btfmill prove`. Returns the exit status: 0 if each object loads; 1 if one does not. With `--command` it is the exit
 * status of the loader, the first that is not 0.
 */
export async function run(files: string[], options: ProveCommandOptions): Promise<number> {
  const {
    kernel: named,
    json,
    command,
    attach,
    allPrograms,
    sizeMaps,
    source,
    mirror,
    timeout,
    cache,
  } = options
  const stop = stopOnSignals(() => {})
  for (const file of files) await checkReadable(file)
  if (command !== undefined) await checkReadable(command)
  const rows = await readSources(options.sources || undefined, keyDirectories(options.keys))
  const sources = [...rows.values()]
  const mismatch = explainNoSource({}, sources, source)
  if (mismatch) throw unknownSource(mismatch)
  const { name, kernel, ...found } = await findKernel(named, options.store)
  const btf =
    options.btf === undefined
      ? found.btf
      : (await openKernel(options.btf, { store: options.store })).bytes
  const proof = await prove({
    store: await openStore('memory:'), // searching writes nothing
    kernel,
    objects: files,
    btf,
    command,
    seconds: timeout,
    cache,
    sources,
    ...(source && { source }),
    ...(mirror && { mirror }),
    ...(attach !== undefined && { attach }),
    ...(allPrograms !== undefined && { allPrograms }),
    ...(sizeMaps !== undefined && { sizeMaps }),
    signal: stop.drain,
    onStep: (step) => json || console.error(`${step} …`),
  })
  if (json)
    for (const object of proof.objects) console.log(JSON.stringify(jsonOf(name, proof, object)))
  else for (const line of textOf(proof, command === undefined)) console.log(printable(line))
  const failed = proof.objects.find(({ status }) => status !== 0)
  return command === undefined && failed ? 1 : (failed?.status ?? 0)
}

interface FoundKernel {
  name: string
  kernel: BuildRecord | string
  /** raw BTF of the store */
  btf?: Uint8Array
}

/**
 * The kernel of a file, or of the store; of several builds, the newest. Errors: `unknown_kernel`, `ambiguous`; those of
 * `Store`.
 */
async function findKernel(named: string, url: string): Promise<FoundKernel> {
  if (await isFile(named)) return { name: named, kernel: named }
  const store = await openStore(url, { create: false })
  const catalog = await Catalog.open(store)
  const builds = await findBuilds(catalog, findNamed(catalog, named))
  const kernel = selectBuild(builds, { newest: true }) ?? builds[0]!
  const { btf } = kernel
  return {
    name: nameOf(kernel.kernel),
    kernel,
    ...(btf && { btf: await getBlob(store, btf.sha256) }),
  }
}

const jsonOf = (
  kernel: string,
  { release, ownBtf }: Proof,
  { object, status, output }: ObjectProof,
) => ({
  object,
  kernel,
  release,
  ownBtf,
  status,
  ...(readLoaderReport(output) ?? { output }),
})

/** The result for people: a line for each program, and below it the words of libbpf and the verifier. */
function* textOf({ release, ownBtf, objects }: Proof, isOurs: boolean): Generator<string> {
  yield `Linux ${release}, ${ownBtf ? 'with' : 'without'} BTF of its own`
  for (const { object, status, output } of objects) {
    const report = isOurs ? readLoaderReport(output) : undefined
    if (!report) {
      yield `${basename(object)}: exit status ${status}`
      yield* output.map((line) => `  ${line}`)
      continue
    }
    const { libbpf, error, log, programs } = report
    const works = programs.filter((program) => program.error === 0).length
    const verdict = error === 0 ? 'loads' : `does not load: ${errorText(error)}`
    yield `${basename(object)} ${verdict} (libbpf ${libbpf})`
    const isTold = error === 0 || programs.some((program) => program.error !== 0)
    if (!isTold) yield* log.map((line) => `    ${line}`)
    for (const program of programs) {
      yield `  ${program.name} (${program.section}): ${resultOf(program)}`
      yield* program.log.map((line) => `    ${line}`)
    }
    yield `${works} of ${counted(programs.length, 'program')} ${works === 1 ? 'loads' : 'load'}`
  }
}

const EOPNOTSUPP = -95

function resultOf({ error, attachError }: { error: number; attachError?: number }): string {
  if (error !== 0) return `does not load: ${errorText(error)}`
  if (attachError === undefined) return 'loads'
  if (attachError === EOPNOTSUPP) return 'loads; libbpf does not attach its type by itself'
  return attachError === 0
    ? 'loads and attaches'
    : `loads, does not attach: ${errorText(attachError)}`
}

/** A negative errno value of Linux. */
function errorText(error: number): string {
  const [code, message] = getSystemErrorMap().get(error) ?? []
  return code === undefined ? `error ${error}` : `${code} (${message})`
}

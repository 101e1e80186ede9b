/*
 * One package, one record: fetch and unpack → pahole → check → publish. pahole works while the rest of the package is
 * hashed; nothing is published before the digest is right. A failure is a value: it becomes a record too, and what
 * was on disk is gone.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Vmlinux } from '../../bpf/index.ts'
import {
  type BtfInfo,
  type BuildRecord,
  buildOf,
  FAILURE_CODES,
  type Failure,
  type FailureCode,
  type ModuleInfo,
  putBlob,
  putRecord,
  recordKey,
  type Store,
  type Tool,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { Instead, OnJobEvent, Stage } from '../event.ts'
import { codeOf, failureOf } from '../failure.ts'
import type { DownloadRetryOptions } from '../packages/download.ts'
import { fetchVmlinux, type PackageReceipt } from '../packages/fetch.ts'
import { ALL_MODULES, ModuleSet, moduleName } from '../packages/module.ts'
import { atMost, type SizeLimit, UNPACK_LIMITS } from '../packages/unpack.ts'
import { readVmlinux } from '../packages/vmlinux.ts'
import { withScratch } from '../scratch.ts'
import type { Source } from '../sources/source.ts'
import { ALL_SOURCES } from '../sources/sources.ts'
import { type Amount, type Lease, memoryWith, needsOf } from './budget.ts'
import { checkBtf, checkVmlinux, originOf } from './check.ts'
import { type Job, nameOf } from './job.ts'
import { encodeModules, type Modules } from './modules.ts'
import { encodeBtf, PAHOLE_LIMITS, type PaholeLimits } from './pahole.ts'
import { attemptsOf, knownRecord } from './plan.ts'

export interface PipelineOptions {
  store: Store
  tool: Tool
  /** directory for what is unpacked; else the system's temporary directory */
  scratch?: string
  pahole?: PaholeLimits
  retry?: DownloadRetryOptions
  /** those whose access jobs need; else all that btfmill knows */
  sources?: readonly Source[]
  signal?: AbortSignal
  onEvent?: OnJobEvent
}

/** What made the BTF that a kernel carries itself: its own build. */
const NO_TOOL: Tool = { name: 'none', version: '', options: [], fingerprint: 'embedded' }

/** A job that has to wait until others leave it so much of the machine: nothing is stored, and nothing left. */
export class NoRoom extends Error {
  readonly want: Amount

  constructor(want: Amount) {
    super('the machine has no room for it now')
    this.want = want
  }
}

/** What a job came to. A failure that could not be stored either is only told. */
export type JobOutcome =
  | { state: 'published'; record: BuildRecord }
  | { state: 'failed'; failure: Failure; stored: boolean }

/**
 * Runs one job to its end, on what it holds; where that is lost, what it may fall back on. Throws only where
 * `signal` aborts it (then nothing is stored, and nothing left), and `NoRoom`.
 */
export async function runJob(
  job: Job,
  lease: Lease,
  options: PipelineOptions,
  instead?: Instead,
): Promise<JobOutcome> {
  const { onEvent = () => {}, signal } = options
  const started = performance.now()
  const seconds = () => (performance.now() - started) / 1000
  const kernel = nameOf(job)
  const { name, size } = job.package
  onEvent({ event: 'started', kernel, package: name, size, ...(instead && { instead }) })
  try {
    const { record, read } = await withScratch(options.scratch, async (directory) => {
      const made = await make(job, lease, directory, options)
      onEvent({ event: 'stage', kernel, stage: 'publish' })
      return { record: await publish(job, made, options), read: made.read }
    })
    onEvent({ event: 'published', kernel: record.kernel, record, read, seconds: seconds() })
    return { state: 'published', record }
  } catch (error) {
    signal?.throwIfAborted()
    if (lease.short) throw new NoRoom(lease.short)
    const { code } = codeOf(error)
    if (job.fallback && !lease.refusal && isLost(code)) {
      const { message } = error as Error
      return await runJob(job.fallback, lease, options, { package: name, code, message })
    }
    const outcome = await recordFailure(job, lease.refusal ?? error, options)
    onEvent({ event: 'failed', kernel, failure: outcome.failure, seconds: seconds() })
    return outcome
  }
}

/** Whether another try would come to the same, or the package is no more where the index has it. */
const isLost = (code: FailureCode): boolean =>
  FAILURE_CODES[code] === 'never' || code === 'not_found_upstream'

interface Encoded {
  vmlinux: Vmlinux
  raw: Uint8Array
  tool: Tool
  info: Omit<BtfInfo, 'sha256'>
  /** those that were wanted; their BTF is in files yet */
  modules?: Modules
}

interface Made extends PackageReceipt, Encoded {}

async function make(
  job: Job,
  lease: Lease,
  directory: string,
  options: PipelineOptions,
): Promise<Made> {
  const { onEvent = () => {}, retry, sources = ALL_SOURCES } = options
  const access = sources.find(({ id }) => id === job.source)?.access
  const kernel = nameOf(job)
  const stage = (name: Stage) => onEvent({ event: 'stage', kernel, stage: name })
  const stop = new AbortController()
  const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])])
  const [image, btf] = [join(directory, 'vmlinux'), join(directory, 'vmlinux.btf')]
  const limits = options.pahole ?? PAHOLE_LIMITS
  const memory = (bytes: number) => lease.may({ memory: memoryWith(bytes) })
  const disk = { vmlinux: 0, modules: 0 }
  const roomFor =
    (what: keyof typeof disk, limit: SizeLimit): SizeLimit =>
    (bytes) => {
      limit(bytes)
      disk[what] = bytes
      if (!lease.may({ disk: disk.vmlinux + disk.modules + limits.output })) throw lease.refusal
    }
  const set = job.modules && new ModuleSet(job.modules, job.kernel.release)

  stage('unpack')
  const room = roomFor('vmlinux', atMost(UNPACK_LIMITS.vmlinux))
  const moduleRoom = roomFor('modules', atMost(UNPACK_LIMITS.unpacked, 'the modules'))
  const to = { vmlinux: image, room, ...(set && { modules: { set, directory, room: moduleRoom } }) }
  const fetched = await fetchVmlinux(job, to, {
    earlyStop: job.earlyStop ?? false,
    signal,
    ...(retry && { retry }),
    ...(access && { access }),
    onProgress: (read) => onEvent({ event: 'progress', kernel, read, size: job.package.size }),
  })
  const encodeKernel = async (): Promise<Encoded> => {
    await fetched.vmlinux
    const vmlinux = await readVmlinux(image)
    checkVmlinux(vmlinux, job.kernel)
    const origin = originOf(vmlinux, job.embedded ? 'embedded' : 'pahole')
    if (origin === 'pahole') {
      stage('pahole')
      const needs = needsOf(disk.vmlinux, limits.output)
      lease.keep({ ...needs, disk: needs.disk + disk.modules })
      await encodeBtf(options.tool, image, btf, { ...limits, room: memory }, signal)
    }
    const raw = origin === 'pahole' ? await readFile(btf) : vmlinux.ownBtf!
    const tool = origin === 'pahole' ? options.tool : NO_TOOL
    stage('check')
    return { vmlinux, raw, tool, info: checkBtf(raw, vmlinux) }
  }
  const encode = async (): Promise<Encoded> => {
    const kernel = await encodeKernel()
    if (!set) return kernel
    const files = await fetched.modules
    if (job.fallback && set.missing.length > 0) throw noModule(set.missing)
    stage('modules')
    const modules = await encodeModules(files, {
      tool: options.tool,
      base: kernel.raw,
      embedded: kernel.tool === NO_TOOL,
      directory,
      limits: { ...limits, room: memory },
      signal,
    })
    for (const name of set.missing) {
      const { code, message } = noModule([name])
      modules.failed[name] = { code, message }
    }
    return { ...kernel, modules }
  }
  const encoding = encode()
  encoding.catch(() => lease.refusal && stop.abort(lease.refusal))
  try {
    // first the package: a wrong digest explains whatever else went wrong
    const receipt = await fetched.done
    return { ...receipt, ...(await encoding) }
  } finally {
    stop.abort()
    await Promise.allSettled([fetched.modules, fetched.done, encoding])
  }
}

function noModule(names: readonly string[]): GeneratorError {
  const which = names.includes(ALL_MODULES) ? 'no modules' : `no ${names.join(', ')}`
  return new GeneratorError('no_module', `the package has ${which}`)
}

async function publish(job: Job, made: Made, options: PipelineOptions): Promise<BuildRecord> {
  const { vmlinux, raw, tool, info, sha256 } = made
  const { store, signal } = options
  const { buildId, unameVersion } = vmlinux
  const arch = job.kernel.arch ?? vmlinux.arch
  const release = job.kernel.release ?? vmlinux.release
  if (arch === undefined || release === undefined) {
    throw new GeneratorError(
      'kernel_mismatch',
      'the image does not say of which kernel it is: name it',
    )
  }
  const blob = await putBlob(store, raw, signal)
  const record: BuildRecord = {
    ...draft(job, tool),
    kernel: {
      ...job.kernel,
      arch,
      release,
      ...(buildId && { buildId }),
      ...(unameVersion && { unameVersion }),
    },
    embedded: vmlinux.ownBtf !== undefined,
    btf: { ...blob, ...info },
  }
  record.package = {
    ...record.package,
    authenticated: authenticated(job, made),
    ...(sha256 && { sha256 }),
  }
  const previous = await readPrevious(store, record)
  if (previous) record.createdAt = previous.createdAt
  const put = () => putModules(store, made.modules, signal)
  Object.assign(record, mergedModules(previous, record, job, made.modules, await put()))
  await putRecord(store, record)
  // gc may have taken old ones of the same bytes before the record named them
  await putBlob(store, raw, signal)
  await put()
  return record
}

async function putModules(
  store: Store,
  modules: Modules | undefined,
  signal: AbortSignal | undefined,
): Promise<Record<string, ModuleInfo>> {
  const kept: Record<string, ModuleInfo> = {}
  for (const { name, path, info } of modules?.made ?? [])
    kept[name] = { ...info, ...(await putBlob(store, await readFile(path), signal)) }
  return kept
}

/** What a record says of modules: of earlier ones, too, as long as the BTF that theirs is over is the same. */
function mergedModules(
  previous: BuildRecord | undefined,
  { btf }: BuildRecord,
  { modules: wanted = [] }: Job,
  now: Modules | undefined,
  made: Record<string, ModuleInfo>,
): Pick<BuildRecord, 'modules' | 'wantedModules' | 'moduleFailures'> {
  const before = previous?.btf?.sha256 === btf?.sha256 ? previous : undefined
  if (!now && !before?.wantedModules) return {}
  const names = new Set([...(before?.wantedModules ?? []), ...wanted.map(moduleName)])
  const failed = Object.entries({ ...before?.moduleFailures, ...now?.failed })
  const modules = { ...before?.modules, ...made }
  return {
    modules,
    wantedModules: [...names].sort(),
    moduleFailures: Object.fromEntries(failed.filter(([name]) => !Object.hasOwn(modules, name))),
  }
}

/** A record of which only the job is known. */
function draft(job: Job, tool: Tool): BuildRecord {
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel: nameOf(job),
    package: { ...job.package, authenticated: 'none' },
    origin: tool === NO_TOOL ? 'embedded' : 'pahole',
    tool,
    createdAt: now,
    updatedAt: now,
  }
}

function authenticated(
  job: Job,
  { authenticated: read, signed }: PackageReceipt,
): BuildRecord['package']['authenticated'] {
  if (read === 'prefix') return 'prefix'
  return job.trust !== 'index' && signed ? 'header' : job.trust
}

/** Stores why a job failed, beside the BTF that an older fingerprint version may have left. */
export async function recordFailure(
  job: Job,
  error: unknown,
  { store, tool }: Pick<PipelineOptions, 'store' | 'tool'>,
): Promise<JobOutcome & { state: 'failed' }> {
  const record = draft(job, tool)
  if (job.embedded) record.origin = 'embedded' // not by pahole alone: that may be tried yet
  // without version, build-id and BTF there is nothing that tells it from other failures of its name
  if (record.package.version === '') record.package.version = 'unknown'
  const previous = await readPrevious(store, record).catch(() => undefined)
  const failure = failureOf(error, attemptsOf(previous, tool.fingerprint) + 1)
  try {
    const kept = previous?.btf ? { ...previous, updatedAt: record.updatedAt } : record
    if (kept.tool.fingerprint !== tool.fingerprint) failure.fingerprint = tool.fingerprint
    await putRecord(store, { ...kept, failure })
    return { state: 'failed', failure, stored: true }
  } catch {
    return { state: 'failed', failure, stored: false }
  }
}

function readPrevious(store: Store, record: BuildRecord): Promise<BuildRecord | undefined> {
  return knownRecord(store, recordKey(record.kernel, buildOf(record)))
}

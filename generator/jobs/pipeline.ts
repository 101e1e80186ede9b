/*
 * The pipeline from one package to one record: fetch and unpack → pahole → check → publish. pahole runs while the rest
 * of the package is hashed. Nothing is published before the package's digest is verified. A failure is a value: it is
 * recorded, too, and the job's files are removed.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FunctionList, Vmlinux } from '../../bpf/index.ts'
import {
  type BtfInfo,
  type BuildRecord,
  buildOf,
  type Failure,
  type ModuleInfo,
  partialOf,
  putBlob,
  putRecord,
  putSymbols,
  recordKey,
  type Store,
  type SymbolsInfo,
  type Tool,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { Instead, OnJobEvent, Stage } from '../event.ts'
import { codeOf, failureOf, isLost, messageOf } from '../failure.ts'
import type { DownloadRetryOptions } from '../packages/download.ts'
import { type Fetched, fetchVmlinux, type PackageReceipt } from '../packages/fetch.ts'
import { VersionFiles } from '../packages/kernel-version.ts'
import {
  ALL_MODULES,
  BTF_MODULE,
  type ModuleFile,
  ModuleSet,
  moduleName,
} from '../packages/module.ts'
import { atMost, type SizeLimit, UNPACK_LIMITS } from '../packages/unpack.ts'
import { isLinked, readFunctionsOf, readModule, readVmlinux } from '../packages/vmlinux.ts'
import { withScratch } from '../scratch.ts'
import type { Source } from '../sources/source.ts'
import { ALL_SOURCES } from '../sources/sources.ts'
import { accessTo } from './belonging.ts'
import { type Amount, type Denial, type Lease, memoryWith, needsOf } from './budget.ts'
import { checkBtf, checkVmlinux, originOf } from './check.ts'
import { headersTool, makeFromHeaders, publishFromHeaders } from './headers.ts'
import { findInlined } from './inlined.ts'
import { type Job, nameOf } from './job.ts'
import { encodeModules, type Modules } from './modules.ts'
import { encodeBtf, PAHOLE_LIMITS, type PaholeLimits } from './pahole.ts'
import { attemptsOf, knownRecord } from './plan.ts'

export interface PipelineOptions {
  store: Store
  tool: Tool
  /** directory for unpacked files; default: the system's temporary directory */
  scratch?: string
  pahole?: PaholeLimits
  retry?: DownloadRetryOptions
  /** the sources whose access jobs may need; default: all built-in sources */
  sources?: readonly Source[]
  signal?: AbortSignal
  onEvent?: OnJobEvent
}

/** The tool of BTF that a kernel carries itself: the kernel's own build made it. */
const NO_TOOL: Tool = { name: 'none', version: '', options: [], fingerprint: 'embedded' }

/**
 * The result of a job. `read`: bytes read of all packages that were tried. `stored` is false if the failure could not be
 * recorded either.
 */
export type JobOutcome =
  | { state: 'published'; record: BuildRecord; read: number }
  | { state: 'failed'; failure: Failure; stored: boolean; read: number }

/** A job that ended because other jobs hold the memory or the disk space that it needs. Nothing is stored. */
export interface DeferredJob {
  state: 'deferred'
  /** what to lease before the job is started again */
  want: Amount
}

/** One run of a job, with the state that its steps share. */
interface JobRun {
  job: Job
  lease: Lease
  options: PipelineOptions
  limits: PaholeLimits
  /** the modules to look for; undefined if none are wanted */
  modules: ModuleSet | undefined
  /** the kernel's version, if the package has kernel headers */
  versionFiles?: VersionFiles
  /** bytes of the package that have been read so far */
  read: number
  /** the image, if the kernel's own BTF is wanted and the image has it, or debug info */
  vmlinux: Vmlinux | undefined
  /** bytes that have been unpacked so far */
  unpacked: { vmlinux: number; modules: number }
  /** ends all steps of this run */
  stop: AbortController
  /** aborts with `stop`, and with the signal of the options */
  signal: AbortSignal
  /** why the lease could not grow, which ended the run */
  denial: Denial | undefined
}

/** What a job did before its fallback was started. */
interface Earlier {
  instead?: Instead
  /** bytes of packages that were read */
  read: number
  seconds: number
}

/**
 * Runs one job to its end with what it leased; if its package is lost, with its next fallback. Rejects only with the
 * reason of `signal`: then nothing is stored, and no file is left.
 */
export async function runJob(
  job: Job,
  lease: Lease,
  given: PipelineOptions,
  { instead, ...earlier }: Earlier = { read: 0, seconds: 0 },
): Promise<JobOutcome | DeferredJob> {
  const options = optionsFor(job, given)
  const { onEvent = () => {}, signal } = options
  const started = performance.now()
  const seconds = () => earlier.seconds + (performance.now() - started) / 1000
  const kernel = nameOf(job)
  const { name, size } = job.package
  onEvent({ event: 'started', kernel, package: name, size, ...(instead && { instead }) })
  const run = newRun(job, lease, options)
  try {
    const record = await withScratch(options.scratch, async (directory) => {
      if (isFromHeaders(job)) return await runFromHeaders(run, directory)
      const made = await make(run, directory)
      emitStage(run, 'publish')
      return await publish(job, made, options)
    })
    const read = earlier.read + run.read
    onEvent({ event: 'published', kernel: record.kernel, record, read, seconds: seconds() })
    return { state: 'published', record, read }
  } catch (error) {
    signal?.throwIfAborted()
    const { denial } = run
    if (denial?.want) return { state: 'deferred', want: denial.want }
    const { code } = codeOf(error)
    const read = earlier.read + run.read
    const [next, ...fallbacks] = job.fallbacks ?? []
    if (next && !denial && isLost(code)) {
      const instead = { package: name, code, message: messageOf(error) }
      const tried = { instead, read, seconds: seconds() }
      return await runJob({ ...next, fallbacks }, lease, options, tried)
    }
    const outcome = { ...(await recordFailure(job, denial?.error ?? error, options)), read }
    onEvent({ event: 'failed', kernel, failure: outcome.failure, seconds: seconds() })
    return outcome
  }
}

const isFromHeaders = ({ from }: Job): boolean => from === 'headers'

/** The options of a job: what headers give goes to the store of partial BTF, and to no other. */
function optionsFor(job: Job, options: PipelineOptions): PipelineOptions {
  if (!isFromHeaders(job)) return options
  return { ...options, store: partialOf(options.store) }
}

/** Makes and publishes partial BTF. Errors: those of `makeFromHeaders`; those of the store. */
async function runFromHeaders(run: JobRun, directory: string): Promise<BuildRecord> {
  const { job, options, signal } = run
  const { tool, store, retry, sources = ALL_SOURCES } = options
  const source = sources.find(({ id }) => id === job.source)
  const access = accessTo(source, job.package.url)
  const made = await makeFromHeaders(job, {
    tool,
    directory,
    limits: leasedLimits(run),
    download: { signal, ...(retry && { retry }), ...(access && { access }) },
    signal,
    onStage: (stage) => emitStage(run, stage),
  })
  run.read = made.read
  emitStage(run, 'publish')
  const record = draft(job, tool)
  const { signed, sha256 } = made.receipt
  const isWhole = job.trust !== 'index' && signed
  record.package.authenticated = isWhole ? 'header' : sha256 === undefined ? 'none' : job.trust
  const previous = (record: BuildRecord) => readPrevious(store, record)
  return await publishFromHeaders(store, record, made, previous, options.signal)
}

function newRun(job: Job, lease: Lease, options: PipelineOptions): JobRun {
  const stop = new AbortController()
  return {
    job,
    lease,
    options,
    limits: options.pahole ?? PAHOLE_LIMITS,
    modules: modulesOf(job),
    vmlinux: undefined,
    read: 0,
    unpacked: { vmlinux: 0, modules: 0 },
    stop,
    signal: AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]),
    denial: undefined,
  }
}

/** The modules to look for. A kernel's own BTF may be in a module. */
function modulesOf(job: Job): ModuleSet | undefined {
  const { modules, kernel } = job
  if (mayHaveBtfModule(job)) return new ModuleSet(modules ?? [], kernel.release, BTF_MODULE)
  return modules && new ModuleSet(modules, kernel.release)
}

/** Tells whether the kernel's own BTF is wanted, and may be in a module beside the image. */
const mayHaveBtfModule = ({ role, from }: Job): boolean => role !== 'headers' && from !== 'debug'

function emitStage({ job, options }: JobRun, stage: Stage): void {
  options.onEvent?.({ event: 'stage', kernel: nameOf(job), stage })
}

/** The BTF of a kernel and of its modules, checked but not stored. */
interface Encoded {
  vmlinux: Vmlinux
  raw: Uint8Array
  tool: Tool
  info: Omit<BtfInfo, 'sha256'>
  /** the functions in the symbol table, with marks for inlined calls where these were wanted and found */
  functions: FunctionList | undefined
  /** whether inlined calls are marked */
  isMarked?: boolean
  /** why it is not known which calls are inlined, though that was wanted */
  inlinedFailure?: NonNullable<BuildRecord['inlinedFailure']>
  /** the modules that were wanted; their BTF is in files */
  modules?: Modules
}

interface Made extends PackageReceipt, Encoded {}

/** Fetches a job's package, and encodes the BTF as soon as vmlinux is unpacked. */
async function make(run: JobRun, directory: string): Promise<Made> {
  if (run.job.role === 'headers') run.versionFiles = new VersionFiles(directory, run.job.vmlinux)
  emitStage(run, 'unpack')
  const fetched = await startFetch(run, directory)
  const encoding = encode(run, directory, fetched)
  // without memory or disk space the rest of the package is of no use
  encoding.catch(() => run.denial && run.stop.abort(run.denial.error))
  try {
    // the receipt comes first: a wrong digest explains every other failure
    const receipt = await fetched.done
    return { ...receipt, ...(await encoding) }
  } finally {
    run.stop.abort()
    await Promise.allSettled([fetched.modules, fetched.done, encoding])
  }
}

const imageIn = (directory: string): string => join(directory, 'vmlinux')

function startFetch(run: JobRun, directory: string): Promise<Fetched> {
  const { job, options, modules: set, signal } = run
  const { onEvent, retry, sources = ALL_SOURCES } = options
  const source = sources.find(({ id }) => id === job.source)
  const access = accessTo(source, job.package.url)
  const moduleLimit = atMost(UNPACK_LIMITS.unpacked, 'the modules')
  const modules = set && { set, directory, room: diskLimit(run, 'modules', moduleLimit) }
  const room = diskLimit(run, 'vmlinux', atMost(UNPACK_LIMITS.vmlinux))
  const { versionFiles } = run
  const target = {
    vmlinux: imageIn(directory),
    room,
    ...(modules && { modules }),
    ...(versionFiles && { versionFiles }),
    ...(mayHaveBtfModule(job) && { onVmlinux: () => lookForBtf(run, directory) }),
  }
  const [kernel, { size }] = [nameOf(job), job.package]
  return fetchVmlinux(job, target, {
    earlyStop: job.earlyStop ?? false,
    signal,
    ...(retry && { retry }),
    ...(access && { access }),
    onProgress: (read) => {
      run.read = read
      onEvent?.({ event: 'progress', kernel, read, size })
    },
  })
}

/** Kernels since then can have their BTF in a module. A package of an older one is not read to its end for it. */
const FIRST_WITH_BTF_MODULE = 7

/** Reads the image, and has its package searched for the module with its BTF if it has none. */
async function lookForBtf(run: JobRun, directory: string): Promise<void> {
  const { job, modules } = run
  const found = await readVmlinux(imageIn(directory)).catch((error: unknown) => {
    if (error instanceof GeneratorError && error.code === 'no_btf') return undefined
    throw error
  })
  if (found?.ownBtf || found?.hasDwarf) {
    run.vmlinux = found
    return
  }
  const release = found?.release ?? job.kernel.release ?? job.guess?.release ?? ''
  if (found?.btfLink || Number.parseInt(release, 10) >= FIRST_WITH_BTF_MODULE) modules?.awaitSpare()
}

/** Describes the kernel, with the BTF of its module btf_vmlinux if the image has none. */
async function describeKernel(run: JobRun, directory: string, fetched: Fetched): Promise<Vmlinux> {
  const image = imageIn(directory)
  if (run.vmlinux) return run.vmlinux
  if (!mayHaveBtfModule(run.job)) return await readVmlinux(image)
  const module = (await fetched.modules).find(({ name }) => name === BTF_MODULE)
  return await readVmlinux(image, module && readModule(module.path).ownBtf)
}

async function encode(run: JobRun, directory: string, fetched: Fetched): Promise<Encoded> {
  await (run.versionFiles ? fetched.modules : fetched.vmlinux)
  const kernel = await encodeKernel(run, directory, fetched)
  if (!run.modules || !run.job.modules) return kernel
  const files = (await fetched.modules).filter(({ name }) => name !== BTF_MODULE)
  return {
    ...kernel,
    modules: await encodeWantedModules(run, directory, kernel, run.modules, files),
  }
}

async function encodeKernel(run: JobRun, directory: string, fetched: Fetched): Promise<Encoded> {
  const { job, limits, options, unpacked } = run
  const image = imageIn(directory)
  const vmlinux = {
    ...(await describeKernel(run, directory, fetched)),
    ...(await run.versionFiles?.read()),
  }
  checkVmlinux(vmlinux, job.kernel)
  const origin = originOf(vmlinux, job)
  let raw: Uint8Array
  if (origin === 'pahole') {
    emitStage(run, 'pahole')
    const needs = needsOf(unpacked.vmlinux, limits.output)
    run.lease.shrink({ ...needs, disk: needs.disk + unpacked.modules })
    const btf = join(directory, 'vmlinux.btf')
    await encodeBtf(options.tool, image, btf, leasedLimits(run), run.signal)
    raw = await readFile(btf)
  } else raw = vmlinux.ownBtf!
  const functions = readFunctionsOf(image)
  // an image without DWARF may have a list of them, and without symbols it has no names to mark
  const hasInlined = origin === 'pahole' || (vmlinux.hasInlineBtf && functions !== undefined)
  const wantsInlined = job.inlinedCalls === true && hasInlined
  const marked = wantsInlined ? await markInlined(run, image, functions) : { functions }
  emitStage(run, 'check')
  const tool = origin === 'pahole' ? options.tool : NO_TOOL
  return { vmlinux, raw, tool, info: checkBtf(raw, vmlinux), ...marked }
}

/** Marks the functions of which some calls are inlined. A failure is recorded: the BTF is as good without. */
async function markInlined(
  run: JobRun,
  image: string,
  functions: FunctionList | undefined,
): Promise<Pick<Encoded, 'functions' | 'isMarked' | 'inlinedFailure'>> {
  emitStage(run, 'inlined')
  try {
    if (!functions) throw new GeneratorError('no_symbols', 'vmlinux has no symbol table')
    const inlined = await findInlined(image, leasedLimits(run), run.signal)
    return { functions: functions.withInlined(inlined), isMarked: true }
  } catch (error) {
    if (run.denial || !(error instanceof GeneratorError)) throw error
    return { functions, inlinedFailure: { code: error.code, message: messageOf(error) } }
  }
}

/** Encodes the modules that were found. A missing one is recorded as failed, unless the job has a fallback. */
async function encodeWantedModules(
  run: JobRun,
  directory: string,
  { raw: base, tool }: Encoded,
  { missing }: ModuleSet,
  files: readonly ModuleFile[],
): Promise<Modules> {
  if ((run.job.fallbacks?.length ?? 0) > 0 && missing.length > 0) throw noModule(missing)
  emitStage(run, 'modules')
  const modules = await encodeModules(files, {
    tool: run.options.tool,
    base,
    embedded: tool === NO_TOOL,
    directory,
    limits: leasedLimits(run),
    signal: run.signal,
  })
  for (const name of missing) {
    const { code, message } = noModule([name])
    modules.failed[name] = { code, message }
  }
  return modules
}

/** The limits of a pahole, which may also use no more memory than the lease allows. */
const leasedLimits = (run: JobRun): PaholeLimits => ({
  ...run.limits,
  room: (bytes) => grow(run, { memory: memoryWith(bytes) }) === undefined,
})

/** The limit of an unpacked file, for which the lease must also have enough disk space. */
function diskLimit(run: JobRun, file: keyof JobRun['unpacked'], limit: SizeLimit): SizeLimit {
  const { unpacked, limits } = run
  return (bytes) => {
    limit(bytes)
    unpacked[file] = bytes
    const denial = grow(run, { disk: unpacked.vmlinux + unpacked.modules + limits.output })
    if (denial) throw denial.error
  }
}

/** Grows the lease of a run. A denial is kept: it explains why the run ends. */
function grow(run: JobRun, want: Partial<Amount>): Denial | undefined {
  const denial = run.lease.grow(want)
  run.denial ??= denial
  return denial
}

function noModule(names: readonly string[]): GeneratorError {
  const which = names.includes(ALL_MODULES) ? 'no modules' : `no module ${names.join(', ')}`
  return new GeneratorError('no_module', `the package has ${which}`)
}

/** Stores the BTF, and then the record that names it. Errors: `kernel_mismatch`; those of the store. */
async function publish(job: Job, made: Made, options: PipelineOptions): Promise<BuildRecord> {
  const { vmlinux, raw, tool, info, sha256 } = made
  const { store, signal } = options
  const { buildId, unameVersion } = vmlinux
  const arch = job.kernel.arch ?? vmlinux.arch ?? job.guess?.arch
  const release = job.kernel.release ?? vmlinux.release ?? job.guess?.release
  if (arch === undefined || release === undefined) {
    const unknown = release === undefined ? 'release' : 'architecture'
    throw new GeneratorError(
      'kernel_mismatch',
      `vmlinux does not tell the kernel's ${unknown}: it must be given with the file`,
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
    ...(vmlinux.btfLink && isLinked(vmlinux.btfLink, raw) && { proven: true }),
    btf: { ...blob, ...info },
  }
  record.package = {
    ...record.package,
    authenticated: authenticationOf(job, made),
    ...(sha256 && { sha256 }),
  }
  const previous = await readPrevious(store, record)
  if (previous) record.createdAt = previous.createdAt
  const put = () => putModules(store, made.modules, signal)
  Object.assign(record, mergedModules(previous, record, job, made.modules, await put()))
  const putNames = () => storeSymbols(store, previous, record, made, signal)
  Object.assign(record, await putNames())
  await putRecord(store, record)
  // gc may have removed equal blobs that were stored earlier, before the record named them
  await putBlob(store, raw, signal)
  await put()
  await putNames()
  return record
}

/**
 * Stores the function names. Returns the record's parts about them. Where an earlier run marked the inlined calls of the
 * same kernel, and this one did not, those names stay.
 */
async function storeSymbols(
  store: Store,
  previous: BuildRecord | undefined,
  { btf }: BuildRecord,
  { functions, isMarked = false, inlinedFailure }: Encoded,
  signal: AbortSignal | undefined,
): Promise<Pick<BuildRecord, 'symbols' | 'inlinedFailure'>> {
  if (!functions) return inlinedFailure ? { inlinedFailure } : {}
  const known = previous?.btf?.sha256 === btf?.sha256 ? previous?.symbols : undefined
  if (!isMarked && known?.inlined !== undefined && known.functions === functions.size)
    return { symbols: known }
  const symbols: SymbolsInfo = {
    ...(await putSymbols(store, functions.encode(), signal)),
    functions: functions.size,
    ...(isMarked && { inlined: functions.count('inlined') }),
  }
  return { symbols, ...(inlinedFailure && { inlinedFailure }) }
}

async function putModules(
  store: Store,
  modules: Modules | undefined,
  signal: AbortSignal | undefined,
): Promise<Record<string, ModuleInfo>> {
  const stored: Record<string, ModuleInfo> = {}
  for (const { name, path, info } of modules?.made ?? [])
    stored[name] = { ...info, ...(await putBlob(store, await readFile(path), signal)) }
  return stored
}

/** The modules of a record. Those of the previous record stay if the kernel's BTF, their base, is the same. */
function mergedModules(
  previous: BuildRecord | undefined,
  { btf }: BuildRecord,
  { modules: wanted = [] }: Job,
  encoded: Modules | undefined,
  stored: Record<string, ModuleInfo>,
): Pick<BuildRecord, 'modules' | 'wantedModules' | 'moduleFailures'> {
  const before = previous?.btf?.sha256 === btf?.sha256 ? previous : undefined
  if (!encoded && !before?.wantedModules) return {}
  const names = new Set([...(before?.wantedModules ?? []), ...wanted.map(moduleName)])
  const failed = Object.entries({ ...before?.moduleFailures, ...encoded?.failed })
  const modules = { ...before?.modules, ...stored }
  return {
    modules,
    wantedModules: [...names].sort(),
    moduleFailures: Object.fromEntries(failed.filter(([name]) => !Object.hasOwn(modules, name))),
  }
}

/** A record with what the job alone tells. */
function draft(job: Job, tool: Tool): BuildRecord {
  const now = new Date().toISOString()
  return {
    schema: 1,
    kernel: nameOf(job),
    package: { ...job.package, authenticated: 'none' },
    origin: isFromHeaders(job) ? 'headers' : tool === NO_TOOL ? 'embedded' : 'pahole',
    tool: isFromHeaders(job) ? headersTool(tool) : tool,
    createdAt: now,
    updatedAt: now,
  }
}

function authenticationOf(
  job: Job,
  { authenticated, signed }: PackageReceipt,
): BuildRecord['package']['authenticated'] {
  if (authenticated === 'prefix') return 'prefix'
  return job.trust !== 'index' && signed ? 'header' : job.trust
}

/** Records why a job failed. BTF that was published under an older fingerprint stays in the record. */
export async function recordFailure(
  job: Job,
  error: unknown,
  options: Pick<PipelineOptions, 'store' | 'tool'>,
): Promise<JobOutcome & { state: 'failed' }> {
  const record = draft(job, options.tool)
  const { tool } = record
  const store = isFromHeaders(job) ? partialOf(options.store) : options.store
  // for `judge`: the packages with the kernel's own BTF were tried, not only the one with debug info
  if (job.from !== 'debug' && !isFromHeaders(job)) record.origin = 'embedded'
  // a record is named after its version, build-id or BTF, and this one may have none of them
  if (record.package.version === '') record.package.version = 'unknown'
  const reading = readPrevious(store, record)
  const previous = await reading.catch(() => undefined)
  const failure = failureOf(error, attemptsOf(previous, tool.fingerprint) + 1)
  try {
    await reading // a record that this version cannot read is not replaced by a failure
    const kept = previous?.btf ? { ...previous, updatedAt: record.updatedAt } : record
    if (kept.tool.fingerprint !== tool.fingerprint) failure.fingerprint = tool.fingerprint
    await putRecord(store, { ...kept, failure })
    return { state: 'failed', failure, stored: true, read: 0 }
  } catch {
    return { state: 'failed', failure, stored: false, read: 0 }
  }
}

function readPrevious(store: Store, record: BuildRecord): Promise<BuildRecord | undefined> {
  return knownRecord(store, recordKey(record.kernel, buildOf(record)))
}

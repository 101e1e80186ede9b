/*
 * One package, one record: fetch and unpack → pahole → check → publish. pahole works while the rest of the package is
 * hashed; nothing is published before the digest is right. A failure is a value: it becomes a record too, and what
 * was on disk is gone.
 */
import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Vmlinux } from '../bpf/index.ts'
import {
  type BtfInfo,
  type BuildRecord,
  buildOf,
  FAILURE_CODES,
  type Failure,
  type FailureCode,
  putBlob,
  putRecord,
  recordKey,
  type Store,
  StoreError,
  type Tool,
} from '../storage/index.ts'
import { type Amount, type Lease, memoryWith, needsOf } from './budget.ts'
import { checkBtf, checkVmlinux, originOf } from './check.ts'
import type { Patience } from './download.ts'
import { GeneratorError } from './error.ts'
import type { Instead, OnJobEvent } from './event.ts'
import { fetchVmlinux, type Receipt } from './fetch.ts'
import { type Job, nameOf } from './job.ts'
import { encodeBtf, PAHOLE_LIMITS, type PaholeLimits } from './pahole.ts'
import { knownRecord } from './plan.ts'
import { withScratch } from './scratch.ts'
import type { Source } from './source.ts'
import { ALL_SOURCES } from './sources.ts'
import { atMost, type Room, UNPACK_LIMITS } from './unpack.ts'
import { readVmlinux } from './vmlinux.ts'

export interface PipelineOptions {
  store: Store
  tool: Tool
  /** directory for what is unpacked; else the system's temporary directory */
  scratch?: string
  pahole?: PaholeLimits
  patience?: Patience
  /** those whose access jobs need; else all that btfmill knows */
  sources?: readonly Source[]
  signal?: AbortSignal
  onEvent?: OnJobEvent
}

/** What made the BTF that a kernel carries itself: its own build. */
const NO_TOOL: Tool = { name: 'none', version: '', options: [], artefact: 'embedded' }

/** A job that has to wait until others leave it so much of the machine: nothing is stored, and nothing left. */
export class NoRoom extends Error {
  readonly want: Amount

  constructor(want: Amount) {
    super('the machine has no room for it now')
    this.want = want
  }
}

/** What a job came to. A failure that could not be stored either is only told. */
export type Outcome =
  | { state: 'published'; record: BuildRecord }
  | { state: 'failed'; failure: Failure; stored: boolean }

/**
 * Runs one job to its end, on what it holds; where it cannot ever succeed, what it may fall back on. Throws only where `signal` aborts it (then nothing is stored, and nothing
 * left), and `NoRoom`.
 */
export async function runJob(
  job: Job,
  lease: Lease,
  options: PipelineOptions,
  instead?: Instead,
): Promise<Outcome> {
  const { onEvent = () => {}, signal } = options
  const started = performance.now()
  const seconds = () => (performance.now() - started) / 1000
  const kernel = nameOf(job)
  const { name, size } = job.package
  onEvent({ event: 'started', kernel, package: name, size, ...(instead && { instead }) })
  try {
    const made = await withScratch(options.scratch, (directory) =>
      make(job, lease, directory, options),
    )
    onEvent({ event: 'stage', kernel, stage: 'publish' })
    const record = await publish(job, made, options)
    onEvent({
      event: 'published',
      kernel: record.kernel,
      record,
      read: made.read,
      seconds: seconds(),
    })
    return { state: 'published', record }
  } catch (error) {
    signal?.throwIfAborted()
    if (lease.short) throw new NoRoom(lease.short)
    const { code } = codeOf(error)
    if (job.fallback && !lease.refusal && FAILURE_CODES[code] === 'never') {
      const { message } = error as Error
      return await runJob(job.fallback, lease, options, { package: name, code, message })
    }
    const outcome = await recordFailure(job, lease.refusal ?? error, options)
    onEvent({ event: 'failed', kernel, failure: outcome.failure, seconds: seconds() })
    return outcome
  }
}

interface Encoded {
  vmlinux: Vmlinux
  raw: Uint8Array
  tool: Tool
}

interface Made extends Receipt, Encoded {
  info: Omit<BtfInfo, 'sha256'>
}

async function make(
  job: Job,
  lease: Lease,
  directory: string,
  options: PipelineOptions,
): Promise<Made> {
  const { onEvent = () => {}, patience, sources = ALL_SOURCES } = options
  const access = sources.find(({ id }) => id === job.source)?.access
  const kernel = nameOf(job)
  const stage = (name: 'unpack' | 'pahole' | 'check') =>
    onEvent({ event: 'stage', kernel, stage: name })
  const stop = new AbortController()
  const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])])
  const image = join(directory, 'vmlinux')
  const btf = join(directory, 'vmlinux.btf')
  const limits = options.pahole ?? PAHOLE_LIMITS
  const room: Room = (bytes) => {
    atMost(UNPACK_LIMITS.vmlinux)(bytes)
    if (!lease.may({ disk: bytes + limits.output })) throw lease.refusal
  }

  stage('unpack')
  const fetched = await fetchVmlinux(job, image, {
    earlyStop: job.earlyStop ?? false,
    room,
    signal,
    ...(patience && { patience }),
    ...(access && { access }),
    onProgress: (read) => onEvent({ event: 'progress', kernel, read, size: job.package.size }),
  })
  const encode = async (): Promise<Encoded> => {
    await fetched.vmlinux
    const vmlinux = await readVmlinux(image)
    checkVmlinux(vmlinux, job.kernel)
    const { tool } = options
    const origin = originOf(vmlinux, job.embedded ? 'embedded' : 'pahole')
    if (origin === 'embedded') return { vmlinux, raw: vmlinux.ownBtf!, tool: NO_TOOL }
    stage('pahole')
    lease.keep(needsOf(statSync(image).size, limits.output))
    const memory = (bytes: number) => lease.may({ memory: memoryWith(bytes) })
    await encodeBtf(tool, image, btf, { ...limits, room: memory }, signal)
    return { vmlinux, raw: await readFile(btf), tool }
  }
  const encoding = encode()
  encoding.catch(() => lease.refusal && stop.abort(lease.refusal))
  try {
    // first the package: a wrong digest explains whatever else went wrong
    const receipt = await fetched.done
    const encoded = await encoding
    stage('check')
    return { ...receipt, ...encoded, info: checkBtf(encoded.raw, encoded.vmlinux) }
  } finally {
    stop.abort()
    await Promise.allSettled([fetched.vmlinux, fetched.done, encoding])
  }
}

async function publish(job: Job, made: Made, options: PipelineOptions): Promise<BuildRecord> {
  const { vmlinux, raw, tool, info, sha256 } = made
  const { store, signal } = options
  const { buildId, unameVersion } = vmlinux
  const arch = job.kernel.arch ?? vmlinux.arch
  const release = job.kernel.release ?? vmlinux.release
  if (arch === undefined || release === undefined) {
    throw new GeneratorError(
      'wrong_kernel',
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
  await putRecord(store, record)
  await putBlob(store, raw, signal) // gc may have taken an old one of the same bytes before the record named it
  return record
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
  { authenticated: read, signed }: Receipt,
): BuildRecord['package']['authenticated'] {
  if (read === 'prefix') return 'prefix'
  return job.vouched !== 'index' && signed ? 'header' : job.vouched
}

async function recordFailure(
  job: Job,
  error: unknown,
  options: PipelineOptions,
): Promise<Outcome & { state: 'failed' }> {
  const { store, tool } = options
  const record = draft(job, tool)
  if (job.embedded) record.origin = 'embedded' // not by pahole alone: that may be tried yet
  // without version, build-id and BTF there is nothing that tells it from other failures of its name
  if (record.package.version === '') record.package.version = 'unknown'
  const previous = await readPrevious(store, record).catch(() => undefined)
  const failure = failureOf(error, (previous?.failure?.attempts ?? 0) + 1)
  try {
    const kept = previous?.btf ? { ...previous, updatedAt: record.updatedAt } : record
    await putRecord(store, { ...kept, failure })
    return { state: 'failed', failure, stored: true }
  } catch {
    return { state: 'failed', failure, stored: false }
  }
}

function readPrevious(store: Store, record: BuildRecord): Promise<BuildRecord | undefined> {
  return knownRecord(store, recordKey(record.kernel, buildOf(record)))
}

const HOUR = 3600 * 1000
const LONGEST_PAUSE = 7 * 24 * HOUR

/** An error as it is kept; `attempts` counts this one. The pause after a `later` one doubles, up to a week. */
export function failureOf(error: unknown, attempts: number, now = new Date()): Failure {
  const { code, log } = codeOf(error)
  const message = error instanceof Error ? error.message : String(error)
  const pause = {
    now: 0,
    later: Math.min(HOUR * 2 ** (attempts - 1), LONGEST_PAUSE),
    never: undefined,
  }[FAILURE_CODES[code]]
  return {
    code,
    message,
    ...(log && { log }),
    attempts,
    at: now.toISOString(),
    retryAt: pause === undefined ? null : new Date(now.getTime() + pause).toISOString(),
  }
}

function codeOf(error: unknown): { code: FailureCode; log?: string | undefined } {
  if (error instanceof GeneratorError) return error
  if (error instanceof StoreError)
    return { code: error.code === 'no_space' ? 'no_space' : 'store_failed' }
  const system = (error as NodeJS.ErrnoException | undefined)?.code
  if (system === 'ENOSPC' || system === 'EDQUOT') return { code: 'no_space' }
  return { code: 'internal', log: error instanceof Error ? error.stack : undefined }
}

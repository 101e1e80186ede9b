/* Selects the packages that need a job: not those that the store has, nor those whose retry is not due. */
import {
  type BuildRecord,
  isUnusableRecord,
  readRecord,
  recordKey,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import { isLost } from '../failure.ts'
import { ALL_MODULES, moduleName } from '../packages/module.ts'
import type { KernelPackage } from '../sources/source.ts'
import type { JobOptions } from './job.ts'

export interface Plan {
  jobs: KernelPackage[]
  /** packages that the store has */
  skipped: number
  /** packages that failed and are not due for a retry */
  postponed: number
}

export interface PlanOptions {
  store: Store
  /** the fingerprint of BTF that this run makes */
  fingerprint: string
  earlyStop: boolean
  /** names of wanted modules */
  modules?: readonly string[]
  /** the functions of which some calls are inlined are wanted */
  inlinedCalls?: boolean
  /** make BTF in this way only, even if the store has it made in the other */
  from?: JobOptions['from']
  /** consider only that many packages: the newest */
  limit?: number
  now?: Date
}

/**
 * Plans a run over packages, in their order. A package is postponed if its record cannot be read, or is of a newer
 * btfmill. Errors: those of the store that concern more than one record.
 */
export async function plan(
  packages: readonly KernelPackage[],
  options: PlanOptions,
): Promise<Plan> {
  const made: Plan = { jobs: [], skipped: 0, postponed: 0 }
  for (const candidate of packages.slice(0, options.limit)) {
    const key = recordKey(candidate.kernel, candidate.version)
    const verdict = await knownRecord(options.store, key).then(
      (record) => judge(record, candidate, options),
      postponeUnusable,
    )
    if (verdict === 'due') made.jobs.push(candidate)
    else made[verdict]++
  }
  return made
}

/** The part of a package on which the verdict depends. */
export type Candidate = Pick<KernelPackage, 'name' | 'checksum'> & {
  fallbacks?: readonly Candidate[]
}

/** Decides by a package's record whether a job is due, and otherwise why not. */
export function judge(
  record: BuildRecord | undefined,
  candidate: Candidate,
  options: Omit<PlanOptions, 'store' | 'limit'>,
): 'due' | 'skipped' | 'postponed' {
  const { fingerprint, earlyStop, modules = [], inlinedCalls = false } = options
  const { from, now = new Date() } = options
  if (!record) return 'due'
  const { failure, btf, tool, origin } = record
  // no pahole can improve the kernel's own BTF
  const isCurrent = tool.fingerprint === fingerprint || origin === 'embedded'
  if (failure && attemptsOf(record, fingerprint) > 0) {
    if (hasUntried(record, candidate, from)) return 'due'
    if (failure.retryAt === null) return 'postponed'
    // a failure in the future was recorded by a wrong clock, so its time of retry is wrong, too
    const isClockWrong = Date.parse(failure.at) > now.getTime()
    return isClockWrong || Date.parse(failure.retryAt) <= now.getTime() ? 'due' : 'postponed'
  }
  if (!btf || !isCurrent || !hasModules(record, modules)) return 'due'
  if (inlinedCalls && !hasInlined(record)) return 'due'
  if (from === 'debug' && origin === 'embedded') return 'due'
  if (from === 'embedded' && origin === 'pahole' && record.embedded) return 'due'
  // a package that was read in part can be read in whole now, and its digest verified
  if (record.package.authenticated === 'prefix') return earlyStop ? 'skipped' : 'due'
  return isPackage(record, candidate) ? 'skipped' : 'due'
}

/** Tells whether the modules were looked for when the record was made. */
function hasModules({ wantedModules = [] }: BuildRecord, names: readonly string[]): boolean {
  const wanted = new Set(wantedModules)
  return wanted.has(ALL_MODULES) || names.every((name) => wanted.has(moduleName(name)))
}

/** Tells whether inlined calls were looked for when the record was made; an image without DWARF has none to look for. */
function hasInlined({ symbols, inlinedFailure, origin }: BuildRecord): boolean {
  return symbols?.inlined !== undefined || inlinedFailure !== undefined || origin === 'embedded'
}

/** The candidate and its fallbacks, in the order in which they are tried. */
const chainOf = (candidate: Candidate): readonly Candidate[] => [
  candidate,
  ...(candidate.fallbacks ?? []),
]

/** Tells whether a package of the chain was not tried yet when the record's job failed. */
function hasUntried(
  { failure, btf, origin, package: { name } }: BuildRecord,
  candidate: Candidate,
  from: PlanOptions['from'],
): boolean {
  // with `--from embedded` debug packages were left out
  if (!btf && origin === 'embedded' && from === 'debug') return true
  // with `--from debug` all packages but the last were left out
  if (!btf && origin === 'pahole' && from !== 'debug' && candidate.name !== name) return true
  // the record of a failed job has the last package that was tried
  const chain = chainOf(candidate)
  const at = chain.findIndex((one) => one.name === name)
  return at >= 0 && at < chain.length - 1 && isLost(failure!.code)
}

/** Tells whether a record was made from one of the packages, or from another package of the same build. */
function isPackage({ package: { name, sha256 } }: BuildRecord, candidate: Candidate): boolean {
  const checksum = chainOf(candidate).find((one) => one.name === name)?.checksum
  return checksum?.algorithm !== 'sha256' || checksum.hex === sha256
}

/** The number of failed attempts to make BTF with this fingerprint. */
export function attemptsOf(record: BuildRecord | undefined, fingerprint: string): number {
  if (!record?.failure) return 0
  const { attempts, fingerprint: failed = record.tool.fingerprint } = record.failure
  return failed === fingerprint ? attempts : 0
}

/** For `catch`: leaves a record alone that this version cannot read. */
function postponeUnusable(error: unknown): 'postponed' {
  if (!isUnusableRecord(error)) throw error
  return 'postponed'
}

/**
 * Reads the record at a key; undefined if there is none or it is invalid. Errors: `newer_schema`; those of `Store.get`.
 */
export async function knownRecord(store: Store, key: string): Promise<BuildRecord | undefined> {
  try {
    return await readRecord(store, key)
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    if (error.code !== 'not_found' && error.code !== 'invalid_record') throw error
    return undefined
  }
}

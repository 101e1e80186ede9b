/* What of the packages on offer is to be done: what the store has, and what failed and is not due, is left out. */
import {
  type BuildRecord,
  readRecord,
  recordKey,
  type Store,
  StoreError,
} from '../../storage/index.ts'
import { ALL_MODULES, moduleName } from '../packages/module.ts'
import type { KernelPackage } from '../sources/source.ts'

export interface Plan {
  jobs: KernelPackage[]
  /** the store has them */
  skipped: number
  /** they failed, and it is not yet time to try again */
  postponed: number
}

export interface PlanOptions {
  store: Store
  /** the fingerprint version that a run would make now */
  fingerprint: string
  earlyStop: boolean
  /** names of the modules that are wanted */
  modules?: readonly string[]
  /** at most so many jobs and skipped packages together: the newest */
  limit?: number
  now?: Date
}

/** Plans a run over packages in the order given. */
export async function plan(
  packages: readonly KernelPackage[],
  options: PlanOptions,
): Promise<Plan> {
  const made: Plan = { jobs: [], skipped: 0, postponed: 0 }
  for (const candidate of packages.slice(0, options.limit)) {
    const key = recordKey(candidate.kernel, candidate.version)
    const record = await knownRecord(options.store, key)
    const verdict = judge(record, candidate, options)
    if (verdict === 'due') made.jobs.push(candidate)
    else made[verdict]++
  }
  return made
}

/** What of a package matters to whether it is to be done. */
export type Candidate = Pick<KernelPackage, 'name' | 'checksum' | 'image'> & {
  fallback?: Candidate
}

/** Whether a package is to be done, by the record that the store has of it. */
export function judge(
  record: BuildRecord | undefined,
  candidate: Candidate,
  { fingerprint, earlyStop, modules = [], now = new Date() }: Omit<PlanOptions, 'store' | 'limit'>,
): 'due' | 'skipped' | 'postponed' {
  if (!record) return 'due'
  const { failure, btf, tool, origin } = record
  // what a kernel carries itself no pahole makes better
  const isCurrent = tool.fingerprint === fingerprint || origin === 'embedded'
  if (failure && attemptsOf(record, fingerprint) > 0) {
    // without the image, which was not tried then
    if (candidate.image && origin !== 'embedded') return 'due'
    if (failure.retryAt === null) return 'postponed'
    // one that is yet to come was written by a clock that was wrong, and so is when it is due
    const isWrong = Date.parse(failure.at) > now.getTime()
    return isWrong || Date.parse(failure.retryAt) <= now.getTime() ? 'due' : 'postponed'
  }
  if (!btf || !isCurrent || !hasModules(record, modules)) return 'due'
  // what was read in part may be read whole now, and then the digest is the index's
  if (record.package.authenticated === 'prefix') return earlyStop ? 'skipped' : 'due'
  return isPackage(record, candidate) ? 'skipped' : 'due'
}

/** Whether those modules were looked for when a record was made. */
function hasModules({ wantedModules = [] }: BuildRecord, names: readonly string[]): boolean {
  const wanted = new Set(wantedModules)
  return wanted.has(ALL_MODULES) || names.every((name) => wanted.has(moduleName(name)))
}

/** Whether a record is of that package, of the one that it may fall back on, or of the image instead of it. */
function isPackage({ origin, package: { name, sha256 } }: BuildRecord, of: Candidate): boolean {
  const known = [of, ...(of.fallback ? [of.fallback] : [])].find((one) => one.name === name)
  if (!known) return origin === 'embedded'
  const { checksum } = known
  return checksum?.algorithm !== 'sha256' || checksum.hex === sha256
}

/** How often a record's package has failed so far to become this fingerprint version. */
export function attemptsOf(record: BuildRecord | undefined, fingerprint: string): number {
  if (!record?.failure) return 0
  const { attempts, fingerprint: failed = record.tool.fingerprint } = record.failure
  return failed === fingerprint ? attempts : 0
}

/** The record at a key, where there is one that reads. Errors: those of `Store.get`. */
export async function knownRecord(store: Store, key: string): Promise<BuildRecord | undefined> {
  try {
    return await readRecord(store, key)
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    if (error.code !== 'not_found' && error.code !== 'invalid_record') throw error
    return undefined
  }
}

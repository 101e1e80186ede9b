/*
 * Finds kernels by the names that people type: DISTRO/VERSION/ARCH/RELEASE, or a release alone. Each part may be a
 * glob, and the release may be `newest`.
 */
import {
  type BuildRecord,
  type Catalog,
  canonicalArch,
  compareVersions,
  type KernelFilter,
  type KernelName,
  matchGlob,
  valuesOf,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { nameOf } from './name.ts'
import { didYouMean, findSimilar } from './similar.ts'

const NEWEST = 'newest'
/** The maximum number of names that an error lists. */
const MAX_LISTED = 10

/**
 * Finds the one kernel that a text names. Kernels without BTF count only if no kernel with BTF matches. `orFile` says that
 * the text may have been the name of a file. Errors: `unknown_kernel` with similar names, `ambiguous` with the kernels
 * that match.
 */
export function findNamed(
  catalog: Catalog,
  text: string,
  { orFile = true }: { orFile?: boolean } = {},
): KernelName {
  const [kernel, ...others] = allNamed(catalog, text)
  if (!kernel) throw unknownKernel(catalog, text, orFile ? 'is not a file and names' : 'names')
  if (others.length === 0) return kernel
  const names = [kernel, ...others].map(nameOf)
  const listed = names.slice(0, MAX_LISTED).join(', ')
  const more = names.length > MAX_LISTED ? `, and ${names.length - MAX_LISTED} more` : ''
  throw new ServiceError('ambiguous', `"${text}" names ${names.length} kernels: ${listed}${more}`)
}

function allNamed(catalog: Catalog, text: string): KernelName[] {
  const parts = text.split('/')
  if (parts.length === 1) parts.unshift('*', '*', '*')
  const [distro, version, arch, release, ...rest] = parts
  if (!distro || !version || !arch || !release || rest.length > 0) return []
  const machine = canonicalArch(arch)
  const pattern = release === NEWEST ? '*' : release
  const found = [...catalog.list()]
    .map(({ record }) => record)
    .filter(
      ({ kernel }) =>
        matchGlob(distro, kernel.distro) &&
        matchGlob(version, kernel.version) &&
        matchGlob(machine, kernel.arch) &&
        matchGlob(pattern, kernel.release),
    )
  const withBtf = found.filter(({ btf }) => btf)
  const kernels = kernelsOf(withBtf.length > 0 ? withBtf : found)
  return release === NEWEST ? newestOf(kernels) : kernels
}

/** The distinct kernels of records, in the order of the records. */
function kernelsOf(records: readonly BuildRecord[]): KernelName[] {
  return [...new Map(records.map(({ kernel }) => [nameOf(kernel), kernel])).values()]
}

/** The kernels of the newest release: several if more than one distribution or architecture has it. */
function newestOf(kernels: readonly KernelName[]): KernelName[] {
  const [first, ...others] = kernels
  if (!first) return []
  const newest = others.reduce(
    (best, { release }) => (compareVersions(release, best) > 0 ? release : best),
    first.release,
  )
  return kernels.filter(({ release }) => release === newest)
}

function unknownKernel(catalog: Catalog, text: string, does: string): ServiceError {
  const kernels = kernelsOf([...catalog.list()].map(({ record }) => record))
  const names = text.includes('/')
    ? kernels.map(nameOf)
    : [...new Set(kernels.map(({ release }) => release))]
  const similar = findSimilar(text, names)
  const hint =
    similar.length > 0
      ? didYouMean(similar)
      : 'expected DISTRO/VERSION/ARCH/RELEASE, a release, newest, or a glob'
  return new ServiceError('unknown_kernel', `"${text}" ${does} no kernel: ${hint}`)
}

/** The part of a filter because of which no kernel matches. */
export interface FilterMismatch<F extends string = keyof KernelFilter> {
  field: F
  value: string
  /** existing values that are similar */
  similar: string[]
  /** existing values, at most ten */
  values: string[]
}

/** Finds the first value of a filter that excludes the last kernel; undefined if each of them matches a kernel. */
export function explainNoMatch(
  catalog: Catalog,
  { distro, version, arch, release }: KernelFilter,
): FilterMismatch | undefined {
  const filter: KernelFilter = {}
  for (const [field, value] of Object.entries({ distro, version, arch, release })) {
    if (value === undefined) continue
    const key = field as keyof KernelFilter
    const matchesNone = (one: string) => catalog.list({ ...filter, [key]: one }).next().done
    const bad = valuesOf(value).find(matchesNone)
    if (bad !== undefined) {
      const before = [...catalog.list(filter)].map(({ record }) => record.kernel[key])
      return before.length === 0 ? undefined : mismatchOf(key, bad, [...new Set(before)])
    }
    filter[key] = value
  }
  return undefined
}

/** Throws for a filter with a value that no kernel of a catalog matches. Errors: `unknown_kernel`. */
export function requireMatches(catalog: Catalog, filter: KernelFilter): void {
  const mismatch = explainNoMatch(catalog, filter)
  if (!mismatch) return
  const { field, value, similar, values } = mismatch
  const hint = similar.length > 0 ? didYouMean(similar) : `there are ${values.join(', ')}`
  throw new ServiceError('unknown_kernel', `no kernel matches ${field}=${value}: ${hint}`)
}

/** The mismatch of a value, with those of the existing values that help most. */
export function mismatchOf<F extends string>(
  field: F,
  value: string,
  values: readonly string[],
): FilterMismatch<F> {
  const similar = findSimilar(value.replace(/[*?]/g, ''), values)
  return { field, value, similar, values: values.slice(0, MAX_LISTED) }
}

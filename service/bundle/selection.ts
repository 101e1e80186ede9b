/*
 * Selects the kernels of a bundle, their paths and their order. Similar kernels are neighbours, since a compressor only
 * finds repetitions within its window: the builds of one series and architecture share most of their types.
 */
import {
  type BuildRecord,
  type Catalog,
  flavourOf,
  type KernelFilter,
  type KernelName,
  sortableRelease,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { type Available, preferred } from '../kernel/lookup.ts'
import { type Profile, pathsOf } from './profile.ts'

/** A kernel to bundle. */
export interface Selected {
  path: string
  /** builds of this name with different BTF, newest first; usually one */
  builds: readonly Available[]
}

/** A kernel that the profile cannot hold, with the reason. */
export interface NotRepresentable {
  kernel: KernelName
  message: string
}

export interface Selection {
  kernels: readonly Selected[]
  notRepresentable: readonly NotRepresentable[]
  /** total bytes of whole BTF, uncompressed */
  size: number
}

/**
 * Selects the kernels that match a filter. Errors: `invalid_request` for several architectures in a profile that holds
 * one.
 */
export function select(catalog: Catalog, filter: KernelFilter, profile: Profile): Selection {
  const byPath = new Map<string, BuildRecord[]>()
  const notRepresentable: NotRepresentable[] = []
  for (const { record } of catalog.list(filter)) {
    if (!record.btf) continue
    try {
      for (const path of pathsOf(profile, record.kernel))
        byPath.set(path, [...(byPath.get(path) ?? []), record])
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      notRepresentable.push({ kernel: record.kernel, message: error.message })
    }
  }
  const kernels = [...byPath].map(([path, records]) => ({ path, builds: distinctBuilds(records) }))
  if (profile.singleArch) assertSingleArch(kernels)
  const newest = new Set(kernels.map(({ builds }) => builds[0]!))
  const size = [...newest].reduce((sum, { btf }) => sum + btf.size, 0)
  return { kernels: bySimilarity(kernels), notRepresentable, size }
}

/** Returns the newest build for each different BTF. */
function distinctBuilds(records: readonly BuildRecord[]): Available[] {
  const newestFirst = preferred(records).sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1))
  const byDigest = Map.groupBy(newestFirst, ({ btf }) => btf.sha256)
  return [...byDigest.values()].map(([newest]) => newest!)
}

function assertSingleArch(kernels: readonly Selected[]): void {
  const archs = new Set(kernels.flatMap(({ builds }) => builds.map(({ kernel }) => kernel.arch)))
  if (archs.size <= 1) return
  const names = [...archs].join(', ')
  throw new ServiceError(
    'invalid_request',
    `several architectures match, but the profile holds one: select one of ${names}`,
  )
}

/** Sorts by architecture, distribution, flavour, and release in numeric order. */
function bySimilarity(kernels: readonly Selected[]): Selected[] {
  const keyed = kernels.map((kernel) => ({ kernel, key: similarityKey(kernel) }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ kernel }) => kernel)
}

function similarityKey({ path, builds: [newest] }: Selected): string {
  const { arch, distro, release } = newest!.kernel
  return [arch, distro, flavourOf(release), sortableRelease(release), path].join('\0')
}

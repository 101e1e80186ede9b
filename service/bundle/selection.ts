/*
 * Which kernels a bundle has, under which paths and in which order. Similar kernels come one after the other, since a
 * compressor finds again what it has seen lately: the builds of one series and architecture share most of their types.
 */
import type { BuildRecord, Catalog, KernelFilter, KernelName } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { type Available, preferred } from '../kernel/lookup.ts'
import type { Profile } from './profile.ts'

/** A kernel to be bundled. */
export interface Selected {
  path: string
  /** builds with different BTF that one name stands for, newest first; mostly one */
  builds: readonly Available[]
}

/** A kernel that no bundle in this profile can hold, and why. */
export interface NotRepresentable {
  kernel: KernelName
  message: string
}

export interface Selection {
  kernels: readonly Selected[]
  notRepresentable: readonly NotRepresentable[]
  /** bytes of all BTF together, as it is in the store */
  size: number
}

/** Errors: `invalid_request` for several architectures in a profile that names none. */
export function select(catalog: Catalog, filter: KernelFilter, profile: Profile): Selection {
  const byPath = new Map<string, BuildRecord[]>()
  const notRepresentable: NotRepresentable[] = []
  for (const { record } of catalog.list(filter)) {
    if (!record.btf) continue
    try {
      const path = profile.path(record.kernel)
      byPath.set(path, [...(byPath.get(path) ?? []), record])
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      notRepresentable.push({ kernel: record.kernel, message: error.message })
    }
  }
  const kernels = [...byPath].map(([path, records]) => ({ path, builds: different(records) }))
  if (profile.oneArch) refuseSeveral(kernels)
  const size = kernels.reduce((sum, { builds }) => sum + builds[0]!.btf.size, 0)
  return { kernels: bySimilarity(kernels), notRepresentable, size }
}

/** Of builds with the very same BTF the newest. */
function different(records: readonly BuildRecord[]): Available[] {
  const newestFirst = preferred(records).sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1))
  const byDigest = Map.groupBy(newestFirst, ({ btf }) => btf.sha256)
  return [...byDigest.values()].map(([newest]) => newest!)
}

function refuseSeveral(kernels: readonly Selected[]): void {
  const archs = new Set(kernels.map(({ builds }) => builds[0]!.kernel.arch))
  if (archs.size <= 1) return
  const all = [...archs].join(', ')
  throw new ServiceError(
    'invalid_request',
    `such a bundle is of one architecture; choose of ${all}`,
  )
}

/** By architecture, distribution and flavour, then from release to release as they are counted. */
function bySimilarity(kernels: readonly Selected[]): Selected[] {
  const keyed = kernels.map((kernel) => ({ kernel, key: similarityKey(kernel) }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ kernel }) => kernel)
}

function similarityKey({ path, builds: [newest] }: Selected): string {
  const { arch, distro, release } = newest!.kernel
  const counted = release.replace(/\d+/g, (digits) => digits.padStart(12, '0'))
  return [arch, distro, flavourOf(release), counted, path].join('\0')
}

/** What a release ends with after its last number, as a distribution names the flavours of its kernel. */
const flavourOf = (release: string): string => /(?:-[a-z][^.]*)?$/i.exec(release)?.[0] ?? ''

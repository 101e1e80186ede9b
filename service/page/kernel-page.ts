/* /kernels/DISTRO/VERSION/ARCH/RELEASE: one kernel. How its BTF was made, what vouches for it, and how to use it. */
import type { BuildRecord, TakenFrom } from '../../storage/index.ts'
import { type PublicRecord, toPublic } from '../kernel/public-record.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import type { Page } from './render.ts'
import { diffUrl, kernelUrl, typeUrl, urlOf } from './url.ts'

interface BuildView {
  readonly record: PublicRecord
  /** how its BTF came about, in sentences */
  readonly story: readonly string[]
  /** whether this build's BTF is served for the kernel */
  readonly served: boolean
  readonly modules: number
}

interface NeighbourView {
  readonly release: string
  readonly href: string
  readonly diff?: string
}

export interface KernelView {
  readonly name: string
  readonly kernel: KernelRow['kernel']
  readonly state: KernelRow['state']
  readonly builds: readonly BuildView[]
  /** addresses of its BTF below the service */
  readonly links: { readonly btf: string; readonly immutable?: string; readonly header?: string }
  readonly sha256?: string
  readonly size?: number
  readonly buildId?: string
  /** older and newer kernel of the series */
  readonly previous?: NeighbourView
  readonly next?: NeighbourView
  readonly series: { readonly text: string; readonly href: string; readonly length: number }
  /** types that programs often read, in this kernel */
  readonly types: readonly { readonly name: string; readonly href: string }[]
}

/** Types that most programs read. */
const COMMON = ['task_struct', 'sock', 'sk_buff', 'file', 'inode', 'dentry', 'cred', 'mm_struct']

/** The page of a kernel by its encoded name; undefined if there is none. */
export function kernelPage(table: KernelTable, name: string): Page | undefined {
  const row = table.find(name)
  if (!row) return undefined
  const { kernel, state, builds, served } = row
  const series = table.series(row)
  const at = series.indexOf(row)
  const [newer, older] = [series[at - 1], series[at + 1]]
  const path = kernelUrl(name)
  const view: KernelView = {
    ...{ name, kernel, state },
    builds: builds.map((record) => ({
      record: toPublic(record),
      story: storyOf(record),
      served: record === served,
      modules: Object.keys(record.modules ?? {}).length,
    })),
    links: {
      btf: `/v1/btf/${name}`,
      ...(served && {
        immutable: `/v1/btf/sha256/${served.btf.sha256}`,
        header: `/v1/btf/${name}/vmlinux.h`,
      }),
    },
    ...(served && { sha256: served.btf.sha256, size: served.btf.size }),
    ...(served?.kernel.buildId && { buildId: served.kernel.buildId }),
    ...(older && { previous: neighbour(older, older, row) }),
    ...(newer && { next: neighbour(newer, row, newer) }),
    series: {
      text: [kernel.distro, kernel.version, kernel.arch, row.flavour].filter(Boolean).join(' '),
      href: urlOf('/kernels', {
        distro: kernel.distro,
        version: kernel.version,
        arch: kernel.arch,
        flavour: row.flavour || 'none',
      }),
      length: series.length,
    },
    types: served ? COMMON.map((type) => ({ name: type, href: typeUrl(type, name) })) : [],
  }
  const what = `${kernel.release} of ${kernel.distro} ${kernel.version} (${kernel.arch})`
  return {
    template: 'kernel',
    title: `BTF of Linux ${what}`,
    description: served
      ? `Download the BTF of Linux ${what}: ${served.btf.types} types, with the commands for libbpf, cilium/ebpf, aya, bpftrace and other loaders.`
      : `Linux ${what}: why there is no BTF of it here.`,
    path,
    part: 'kernels',
    view,
  }
}

function neighbour(row: KernelRow, before: KernelRow, after: KernelRow): NeighbourView {
  return {
    release: row.kernel.release,
    href: kernelUrl(row.name),
    ...(before.served && after.served && { diff: diffUrl(before.name, after.name) }),
  }
}

const AUTHENTICATED: Record<BuildRecord['package']['authenticated'], string> = {
  index:
    'All bytes of the package match the SHA-256 in the index that the distribution has signed.',
  header: 'All bytes of the package match the signature in the package itself.',
  prefix:
    'The package was read only as far as needed, so its digest was never compared. The index that lists it is signed.',
  digest:
    'All bytes of the package match a digest that came over TLS. The digest itself is not signed.',
  none: 'Nothing vouches for the package: the operator of this service gave it as a file or an address.',
}

const VOUCHED: Record<TakenFrom['vouched'], string> = {
  signature: 'Its signed catalog names the SHA-256 of this BTF.',
  digest: 'The SHA-256 matches what that service said; nothing signs it.',
  none: 'No digest was compared; the BTF was checked to be that of a kernel of this architecture.',
}

/** From which services the BTF was taken, the nearest first. */
function takenStory({ takenFrom = [] }: BuildRecord): string[] {
  return takenFrom.flatMap(({ url, vouched, takenAt }, i) => {
    const from = i === 0 ? 'This service took the BTF' : 'That service took it'
    return [`${from} from ${url} on ${takenAt.slice(0, 10)}.`, VOUCHED[vouched]]
  })
}

/** How the BTF of a build came about, and what vouches for it. */
export function storyOf(record: BuildRecord): string[] {
  const { origin, tool, embedded, proven, failure, btf, package: source } = record
  if (!btf) {
    if (failure)
      return [
        `BTF could not be made: ${failure.message}.`,
        failure.retryAt
          ? `It is tried again after ${failure.retryAt.slice(0, 16).replace('T', ' ')} UTC.`
          : 'It is not tried again by itself.',
      ]
    return embedded
      ? [
          'This kernel was built with BTF of its own, and the service holds no copy. Read it on the host, from /sys/kernel/btf/vmlinux.',
        ]
      : ['Nothing is known of the BTF of this build.']
  }
  const story = takenStory(record)
  const isTaken = story.length > 0
  if (origin === 'pahole')
    story.push(
      `pahole ${tool.version} made this BTF from the debug info of the kernel image in the package ${source.name} ${source.version}.`,
    )
  else if (origin === 'embedded')
    story.push(
      `This BTF is the kernel's own, copied from the package ${source.name} ${source.version}.`,
    )
  else if (!isTaken)
    story.push(
      'This BTF was imported from another collection. It was read and checked as all BTF is, but it was not made from a package here.',
    )
  if (origin !== 'import') story.push(AUTHENTICATED[source.authenticated])
  if (proven)
    story.push('The kernel image has the digest of this BTF, so it is what the build made.')
  if (origin === 'pahole' && embedded === false)
    story.push(
      'The kernel has no BTF of its own. Programs that need it, such as fentry, LSM and struct_ops, do not load, whatever file is given.',
    )
  if (btf.ambiguous)
    story.push(
      `${btf.ambiguous.count} names stand for several structs with different layouts, such as ${btf.ambiguous.names.slice(0, 3).join(', ')}. Relocations against these fail.`,
    )
  if (failure) story.push(`A later attempt to make it again failed: ${failure.message}.`)
  return story
}

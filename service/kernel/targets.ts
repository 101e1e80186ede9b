/* The kernels that BPF objects are checked against or minimized for. */
import type { BtfInfo, Catalog, KernelFilter, KernelName } from '../../storage/index.ts'
import { preferred } from './lookup.ts'
import { nameOf } from './name.ts'

/** One kernel's BTF. A kernel whose builds have different BTF has one target for each. */
export interface TargetKernel {
  /** DISTRO/VERSION/ARCH/RELEASE */
  readonly name: string
  readonly kernel?: KernelName
  /** the package version, if the kernel has several builds with different BTF */
  readonly build?: string
  readonly btf: BtfInfo
}

/** Yields the targets of all kernels that match, ordered by name. */
export function* selectTargets(catalog: Catalog, filter: KernelFilter): Generator<TargetKernel> {
  const records = [...catalog.list(filter)].map(({ record }) => record)
  for (const [name, builds] of Map.groupBy(records, ({ kernel }) => nameOf(kernel))) {
    const different = new Map(preferred(builds).map((build) => [build.btf.sha256, build]))
    for (const {
      kernel,
      package: { version },
      btf,
    } of different.values()) {
      yield { name, kernel, ...(different.size > 1 && { build: version }), btf }
    }
  }
}

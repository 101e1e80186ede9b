/* The kernels that objects are worked on for, as one text names each, and of each the BTF of every build that differs. */
import type { BtfInfo, Catalog, KernelFilter, KernelName } from '../../storage/index.ts'
import { preferred } from './lookup.ts'
import { nameOf } from './name.ts'

/** BTF that objects are worked on for. */
export interface TargetKernel {
  /** DISTRO/VERSION/ARCH/RELEASE */
  readonly name: string
  readonly kernel?: KernelName
  /** the version of its package, where the kernel has several builds with different BTF */
  readonly build?: string
  readonly btf: BtfInfo
}

/** The kernels that match, in order of their names, each with each different BTF that its builds have. */
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

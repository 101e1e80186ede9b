/* The kernels that BPF objects are checked against or minimized for. */
import type {
  BtfInfo,
  Catalog,
  KernelFilter,
  KernelName,
  ModuleInfo,
  SymbolsInfo,
} from '../../storage/index.ts'
import { type Available, factsOf, type KernelFacts, modulesOf, preferred } from './lookup.ts'
import { nameOf } from './name.ts'

/** One kernel's BTF. A kernel whose builds have different BTF has one target for each. */
export interface TargetKernel {
  /** DISTRO/VERSION/ARCH/RELEASE */
  readonly name: string
  readonly kernel?: KernelName
  /** the package version, if the kernel has several builds with different BTF */
  readonly build?: string
  readonly btf: BtfInfo
  /** the BTF of its modules, ordered by name */
  readonly modules: readonly ModuleInfo[]
  /** the names of its functions, where they are known */
  readonly symbols?: SymbolsInfo
  readonly facts: KernelFacts
}

/** Yields the targets of all kernels that match, ordered by name. */
export function* selectTargets(catalog: Catalog, filter: KernelFilter): Generator<TargetKernel> {
  const records = [...catalog.list(filter)].map(({ record }) => record)
  for (const [name, builds] of Map.groupBy(records, ({ kernel }) => nameOf(kernel))) {
    const different = new Map<string, Available>()
    // of builds with the same BTF, one that has modules
    for (const build of preferred(builds)) {
      const { sha256 } = build.btf
      if (!different.has(sha256) || modulesOf(build).length > 0) different.set(sha256, build)
    }
    for (const build of different.values()) {
      const { kernel, btf, symbols } = build
      const { version } = build.package
      const named = different.size > 1 ? { name, build: version } : { name }
      yield {
        ...named,
        kernel,
        btf,
        modules: modulesOf(build),
        ...(symbols && { symbols }),
        facts: factsOf(build),
      }
    }
  }
}

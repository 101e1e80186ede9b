/* /: the search box, what the store has, and the ways to get BTF for a machine. */
import { flavourOf } from '../../storage/index.ts'
import type { KernelTable } from './kernel-table.ts'
import { type ListedKernel, listedKernel } from './kernels-page.ts'
import type { Page } from './render.ts'

export interface HomeView {
  readonly numbers: {
    readonly kernels: number
    readonly distributions: number
    readonly architectures: number
    /** different BTFs */
    readonly btfs: number
    /** their bytes, raw */
    readonly size: number
    /** types in all of them */
    readonly types: number
  }
  /** the newest kernel of some series */
  readonly newest: readonly ListedKernel[]
  readonly example: { readonly release: string; readonly name: string } | undefined
}

const MAX_NEWEST = 8

export function homePage(table: KernelTable): Page {
  const btfs = new Map(
    table.rows.flatMap(({ served }) => (served ? [[served.btf.sha256, served.btf]] : [])),
  )
  const kernels = table.rows.filter(({ served }) => served)
  const sum = (property: 'size' | 'types') =>
    [...btfs.values()].reduce((total, btf) => total + btf[property], 0)
  const newest = table.newest()
  const series = table
    .newestOfSeries()
    .sort(
      (a, b) =>
        time(b) - time(a) ||
        flavourOf(a.kernel.release).length - flavourOf(b.kernel.release).length,
    )
  const view: HomeView = {
    numbers: {
      kernels: kernels.length,
      distributions: new Set(kernels.map(({ kernel }) => `${kernel.distro} ${kernel.version}`))
        .size,
      architectures: new Set(kernels.map(({ kernel }) => kernel.arch)).size,
      btfs: btfs.size,
      size: sum('size'),
      types: sum('types'),
    },
    newest: series.slice(0, MAX_NEWEST).map(listedKernel),
    example: newest && { release: newest.kernel.release, name: newest.name },
  }
  return {
    template: 'home',
    title: 'BTF for Linux kernels: find, compare, download',
    description: `BTF of ${kernels.length} Linux kernels for eBPF programs: download it, look up structs and functions, compare kernels, check where a BPF object loads.`,
    path: '/',
    view,
  }
}

const time = ({ served }: { served?: { createdAt: string } | undefined }): number =>
  served ? Date.parse(served.createdAt) : 0

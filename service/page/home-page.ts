/* /: the search box, what the store has, and the ways to get BTF for a machine. */
import { flavourOf } from '../../storage/index.ts'
import type { KernelTable, TableNumbers } from './kernel-table.ts'
import { type ListedKernel, listedKernel } from './kernels-page.ts'
import type { Page } from './render.ts'

export interface HomeView {
  readonly numbers: Omit<TableNumbers, 'states'>
  /** the newest kernel of some series */
  readonly newest: readonly ListedKernel[]
  readonly example: { readonly release: string; readonly name: string } | undefined
}

const MAX_NEWEST = 8

export function homePage(table: KernelTable): Page {
  const { states: _, ...numbers } = table.numbers()
  const newest = table.newest()
  const series = table
    .newestOfSeries()
    .toSorted(
      (a, b) =>
        time(b) - time(a) ||
        flavourOf(a.kernel.release).length - flavourOf(b.kernel.release).length,
    )
  const view: HomeView = {
    numbers,
    newest: series.slice(0, MAX_NEWEST).map(listedKernel),
    example: newest && { release: newest.kernel.release, name: newest.name },
  }
  return {
    template: 'home',
    title: 'BTF for Linux kernels: find, compare, download',
    description: `BTF of ${numbers.kernels} Linux kernels for eBPF programs: download it, look up structs and functions, compare kernels, check where a BPF object loads.`,
    path: '/',
    view,
  }
}

const time = ({ served }: { served?: { createdAt: string } | undefined }): number =>
  served ? Date.parse(served.createdAt) : 0

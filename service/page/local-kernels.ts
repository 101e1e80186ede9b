/*
 * The kernels that a browser checks an object against: those that people choose on /check, and what the worker needs to know
 * of each. The worker fetches their BTF, so the choice begins with the newest kernel of each series.
 */
import type { TargetKernel } from '../kernel/targets.ts'
import type { KernelTable } from './kernel-table.ts'
import type { LocalKernel } from './local-check.ts'
import { urlOf } from './url.ts'

/** Kernels that are checked at once, and series that are offered. */
const MAX_KERNELS = 600
const MAX_SERIES = 200

/** Which kernels to check; all with BTF without a restriction. */
export interface LocalChoice {
  /** only the newest of each series */
  readonly newest?: boolean
  readonly distro?: string
  /** a kernel's name: only its series */
  readonly series?: string
}

interface ChoiceOption {
  readonly text: string
  readonly kernels: number
  /** the address that lists them */
  readonly href: string
}

/** The choices that a form offers, in groups; the first is the usual one. */
export interface LocalChoices {
  readonly usual: readonly ChoiceOption[]
  readonly distributions: readonly ChoiceOption[]
  readonly series: readonly ChoiceOption[]
}

export function localChoices(table: KernelTable): LocalChoices {
  const rows = table.newestOfSeries()
  const option = (text: string, kernels: number, { newest, ...of }: LocalChoice): ChoiceOption => ({
    ...{ text, kernels: Math.min(kernels, MAX_KERNELS) },
    href: urlOf('/check/kernels', { ...of, ...(newest && { newest: 'true' }) }),
  })
  const byDistribution = Map.groupBy(rows, ({ kernel }) => kernel.distro)
  return {
    usual: [
      option('newest of each series', rows.length, { newest: true }),
      option('all', table.numbers().kernels, {}),
    ],
    distributions: Array.from(byDistribution, ([distro, own]) =>
      option(distro, own.length, { newest: true, distro }),
    ),
    series: rows.slice(0, MAX_SERIES).map((row) => {
      const { distro, version, arch } = row.kernel
      const text = [distro, version, arch, row.flavour].filter(Boolean).join(' ')
      const kernels = table.series(row).filter(({ served }) => served).length
      return option(text, kernels, { series: row.name })
    }),
  }
}

/** The names of the kernels of a choice; if there are too many, the newest of each series. */
export function chosenNames(
  table: KernelTable,
  { newest, distro, series }: LocalChoice,
): ReadonlySet<string> {
  const one = series === undefined ? undefined : table.find(series)
  const from = newest
    ? table.newestOfSeries()
    : series === undefined
      ? table.rows
      : one
        ? table.series(one)
        : []
  const rows = from.filter(
    ({ served, kernel }) => served && (distro === undefined || kernel.distro === distro),
  )
  const ranked = [...Map.groupBy(rows, (row) => row.series).values()].flatMap((own) =>
    own.map(({ name }, rank) => ({ name, rank })),
  )
  const sorted = ranked.sort((a, b) => a.rank - b.rank)
  return new Set(sorted.slice(0, MAX_KERNELS).map(({ name }) => name))
}

/** What the worker needs to know of the kernels with some names. */
export function localKernels(
  table: KernelTable,
  targets: Iterable<TargetKernel>,
  names: ReadonlySet<string>,
): LocalKernel[] {
  const places = new Map(table.rows.map((row, place) => [row.name, { row, place }]))
  const kernels: LocalKernel[] = []
  for (const { name, build, btf, modules, symbols, facts } of targets) {
    const found = names.has(name) ? places.get(name) : undefined
    if (!found) continue
    const { kernel, series, line, flavour } = found.row
    kernels.push({
      row: { name, kernel, series, line, flavour },
      place: found.place,
      ...(build !== undefined && { build }),
      sha256: btf.sha256,
      hasModules: modules.length > 0,
      ...(symbols && { symbols: symbols.sha256 }),
      facts,
    })
  }
  return kernels
}

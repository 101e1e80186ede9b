import { InvalidArgumentError } from 'commander'
import type { KernelConstant } from '../../bpf/index.ts'
import { jsonOf } from '../json.ts'
import { ALL, type SweptKernel, sweepConstants, withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  chosenKernels,
  type FilterOptions,
  filterOf,
  type KernelFlags,
} from './input.ts'
import {
  needsKernelNames,
  needsOneBuild,
  type OffsetEntry,
  type OffsetFormat,
  type OffsetKernel,
  printOffsets,
} from './offsets-formats.ts'
import { readOffsetList } from './offsets-list.ts'
import { print, printable } from './output.ts'

interface OffsetsOptions extends CommonOptions, FilterOptions, KernelFlags {
  format: OffsetFormat
}

/** `btfmill offsets`. Returns the exit status: 1 if a kernel or one of its values is left out for other reasons than that it is missing. */
export async function run(list: string, options: OffsetsOptions): Promise<number> {
  const { format, btf } = options
  if (btf !== undefined && needsKernelNames(format))
    throw new InvalidArgumentError(`--format ${format} names kernels: expected filters, not --btf`)
  const entries = await readOffsetList(list)
  return await withPool(btf === undefined ? ALL : 1, async (pool) => {
    let failed = 0
    const fail = (message: string) => {
      failed++
      console.error(`btfmill: ${printable(message)}`)
    }
    const kernels = await chosenKernels(options, filterOf(options), ({ message }) => fail(message))
    const table = new Table()
    const paths = entries.map(({ paths }) => paths)
    for await (const swept of sweepConstants(pool, kernels, paths)) {
      const { name, build } = swept.kernel
      const shown = build === undefined ? name : `${name} (${build})`
      if ('error' in swept) fail(`${shown}: ${swept.error.code}: ${swept.error.message}`)
      else {
        table.add(swept.kernel, swept.value)
        for (const message of unusable(entries, swept.value, format)) fail(`${shown}: ${message}`)
      }
    }
    if (needsOneBuild(format))
      for (const name of table.leaveOutAmbiguous())
        fail(`${name}: left out: its builds have different offsets, and the format cannot name one`)
    await print(printOffsets(format, { entries, ...table }))
    return failed === 0 ? 0 : 1
  })
}

/** The rows and kernels of a table, as they come. */
class Table {
  readonly rows: (readonly KernelConstant[])[] = []
  kernels: OffsetKernel[] = []
  readonly #indexes = new Map<string, number>()

  add({ name, kernel, build }: SweptKernel, row: readonly KernelConstant[]): void {
    const key = jsonOf(row)
    const index = this.#indexes.get(key) ?? this.rows.push(row) - 1
    this.#indexes.set(key, index)
    this.kernels.push({ name, kernel, build, row: index })
  }

  /** Leaves one of the builds of each kernel, or none if they differ. Returns the names of the latter. */
  leaveOutAmbiguous(): string[] {
    const ambiguous: string[] = []
    this.kernels = [...Map.groupBy(this.kernels, ({ name }) => name)].flatMap(([name, builds]) => {
      if (builds.every(({ row }) => row === builds[0]!.row)) return [builds[0]!]
      ambiguous.push(name)
      return []
    })
    return ambiguous
  }
}

/** Why values of a kernel are not in the output, apart from those that it does not have. */
function unusable(
  entries: readonly OffsetEntry[],
  row: readonly KernelConstant[],
  format: OffsetFormat,
): string[] {
  return row.flatMap(({ kind }, n) => {
    const { name } = entries[n]!
    if (kind === 'ambiguous') return [`${name}: ambiguous: types of one name disagree`]
    if (kind === 'indirect')
      return [`${name}: the path leads through a pointer or an array: expected members by value`]
    if (kind === 'bitfield' && needsOneBuild(format))
      return [`${name}: it is a bitfield, which the format ${format} cannot hold`]
    return []
  })
}

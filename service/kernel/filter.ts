/* Filters for kernels in a query string: the same as on the command line. */
import Type from 'typebox'
import type { KernelFilter, Wanted } from '../../storage/index.ts'

const Word = Type.String({ minLength: 1, maxLength: 255 })

export const FilterQuery = Type.Object({
  distro: Type.Optional(Word),
  version: Type.Optional(Word),
  arch: Type.Optional(Word),
  release: Type.Optional(Type.String({ ...Word, description: '`uname -r`, or a glob' })),
})

/** The filter without absent parts: a query may contain other parameters. */
export const filterOf = <W extends Wanted>({
  distro,
  version,
  arch,
  release,
}: Partial<Record<keyof KernelFilter, W>>): Partial<Record<keyof KernelFilter, W>> => ({
  ...(distro !== undefined && { distro }),
  ...(version !== undefined && { version }),
  ...(arch !== undefined && { arch }),
  ...(release !== undefined && { release }),
})

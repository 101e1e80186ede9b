/* Filters for kernels in a query string: the same as on the command line. */
import Type from 'typebox'
import type { KernelFilter, Wanted } from '../../storage/index.ts'

/** Values of one parameter, which may be repeated. */
const words = (description: string) =>
  Type.Array(Type.String({ minLength: 1, maxLength: 255 }), {
    minItems: 1,
    maxItems: 64,
    description: `${description}; may be repeated`,
  })

export const FilterQuery = Type.Object({
  distro: Type.Optional(words("os-release's ID")),
  version: Type.Optional(words("os-release's VERSION_ID")),
  arch: Type.Optional(words('architecture, by any usual name')),
  release: Type.Optional(words('`uname -r`, or a glob')),
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

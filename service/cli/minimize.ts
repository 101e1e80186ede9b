import { basename, join } from 'node:path'
import { type Dialect, parseBtf } from '../../bpf/index.ts'
import { archiveArch, encodeName, type StoreError } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'
import { jsonOf } from '../json.ts'
import { namedWarnings, warningsOf } from '../objects/warnings.ts'
import { type Swept, type SweptKernel, withPool } from './for-each-kernel.ts'
import {
  type CommonOptions,
  type FilterOptions,
  type KernelError,
  type KernelFlags,
  kernelErrorOf,
  readObject,
} from './input.ts'
import { printable } from './output.ts'
import { sweepChosen, threadsFor } from './sweep.ts'

interface MinimizeCommandOptions extends CommonOptions, FilterOptions, KernelFlags {
  output: string
  dialect?: Dialect
}

/** `btfmill minimize`. Returns the exit status: 1 if nothing was written for a kernel. */
export function run(files: string[], options: MinimizeCommandOptions): Promise<number> {
  return withPool(threadsFor(options), async (pool) => {
    const objects = await Promise.all(files.map(readObject))
    const opened = await pool.run('open', { objects: objects.map(({ bytes }) => bytes) })
    const warnings = namedWarnings(
      files.map((file, n) => ({ name: basename(file), warnings: warningsOf(opened[n]!) })),
    )
    for (const warning of warnings) console.error(`btfmill: warning: ${printable(warning)}`)
    let failed = 0
    const fail = (message: string) => {
      failed++
      console.error(`btfmill: ${printable(message)}`)
    }
    const onInvalid = ({ message }: StoreError) => fail(message)
    for await (const swept of sweepChosen(pool, 'minimize', objects, options, onInvalid)) {
      const made = await write(swept, options.output)
      const kernel = swept.kernel.name
      if (options.json)
        console.log(jsonOf({ kernel, ...made, ...(warnings.length > 0 && { warnings }) }))
      if ('error' in made) fail(`${kernel}: ${made.error.code}: ${made.error.message}`)
      else if (!options.json) console.log(`${made.path}: ${made.size} of ${made.of} bytes`)
    }
    return failed === 0 ? 0 : 1
  })
}

interface Written {
  path: string
  /** bytes of the minimized BTF, and of the whole BTF */
  size: number
  of: number
  types: number
}

/** Writes the minimized BTF of a kernel. */
async function write(
  { kernel, ...swept }: Swept<Uint8Array>,
  output: string,
): Promise<Written | { error: KernelError }> {
  if ('error' in swept) return swept
  try {
    const path = pathOf(kernel, output)
    const { of, value } = swept
    const types = parseBtf(value).typeCount
    await writeWhole(path, value)
    return { path, size: value.length, types, of }
  } catch (cause) {
    return { error: kernelErrorOf(cause) }
  }
}

/** The output itself for `--btf`; for a kernel of the store a file below it, named as in the btfhub-archive tree. */
function pathOf({ kernel, build }: SweptKernel, output: string): string {
  if (!kernel) return output
  if (build !== undefined) {
    const message = `several builds with different BTF, one of them ${build}: name it with --btf`
    throw new ServiceError('ambiguous', message)
  }
  const { distro, version, arch, release } = kernel
  const file = `${release}.btf`
  return join(output, ...[distro, version, archiveArch(arch), file].map(encodeName))
}

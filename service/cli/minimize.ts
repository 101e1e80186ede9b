import { join } from 'node:path'
import { type BpfObject, minimizeBtf, parseBtf } from '../../bpf/index.ts'
import { archiveArch, encodeName, type KernelFilter } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { writeWhole } from '../file.ts'
import { jsonOf } from '../json.ts'
import { type CommonOptions, filterOf } from './filter.ts'
import { type ChosenKernel, chosenKernels, openObjectFile, refusalOf } from './input.ts'
import { printable } from './output.ts'

interface Options extends CommonOptions, KernelFilter {
  btf?: string
  output: string
}

/** `btfmill minimize`. Returns the exit status: 1 where there is a kernel for which nothing was written. */
export async function run(files: string[], options: Options): Promise<number> {
  const objects = await Promise.all(files.map(openObjectFile))
  let [written, failed] = [0, 0]
  const fail = (message: string) => {
    failed++
    console.error(`btfmill: ${printable(message)}`)
  }
  const kernels = chosenKernels(options, filterOf(options), ({ message }) => fail(message))
  for await (const chosen of kernels) {
    try {
      const { kernel, ...made } = await minimize(chosen, objects, options.output)
      written++
      const { path, size, of } = made
      console.log(options.json ? jsonOf({ kernel, ...made }) : `${path}: ${size} of ${of} bytes`)
    } catch (cause) {
      const error = refusalOf(cause)
      fail(`${chosen.name}: ${error.code}: ${error.message}`)
      if (options.json) console.log(jsonOf({ kernel: chosen.name, error }))
    }
  }
  if (written + failed === 0) fail(`no kernel in ${options.store} matches`)
  return failed === 0 ? 0 : 1
}

/** Writes a kernel's minimised BTF, and says what and where; sizes in bytes. */
async function minimize(chosen: ChosenKernel, objects: readonly BpfObject[], output: string) {
  const path = pathOf(chosen, output)
  const btf = await chosen.btf()
  const minimized = minimizeBtf(btf, objects)
  await writeWhole(path, minimized)
  const { typeCount: types } = parseBtf(minimized)
  return { kernel: chosen.name, path, size: minimized.length, types, of: btf.bytes.length }
}

/** The output itself for `--btf`; for a kernel of the store a file below it, as in the btfhub-archive tree. */
function pathOf({ kernel, build }: ChosenKernel, output: string): string {
  if (!kernel) return output
  if (build !== undefined) {
    throw new ServiceError('ambiguous', `it has several builds with different BTF, ${build} is one`)
  }
  const { distro, version, arch, release } = kernel
  const file = `${release}.btf`
  return join(output, ...[distro, version, archiveArch(arch), file].map(encodeName))
}

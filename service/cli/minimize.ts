import { join } from 'node:path'
import { type BpfObject, BtfError, minimizeBtf, parseBtf } from '../../bpf/index.ts'
import { archiveArch, encodeName, type KernelFilter } from '../../storage/index.ts'
import { type CommonOptions, filterOf } from './filter.ts'
import { type ChosenKernel, chosenKernels, openObjectFile } from './input.ts'
import { jsonLine, writeWhole } from './output.ts'

interface Options extends CommonOptions, KernelFilter {
  btf?: string
  output: string
}

/** `btfmill minimize`. Returns the exit status: 1 where there is a kernel for which nothing was written. */
export async function run(files: string[], options: Options): Promise<number> {
  const objects = await Promise.all(files.map(openObjectFile))
  let written = 0
  let failed = 0
  const fail = (message: string) => {
    failed++
    console.error(`btfmill: ${message}`)
  }
  const kernels = chosenKernels(options, filterOf(options), (error) => fail(error.message))
  for await (const chosen of kernels) {
    try {
      const path = pathOf(chosen, options.output)
      const said = await minimize(chosen, objects, path)
      written++
      console.log(options.json ? jsonLine(said) : `${path}: ${said.size} of ${said.of} bytes`)
    } catch (error) {
      if (!(error instanceof BtfError)) throw error
      const { code, message } = error
      fail(`${chosen.name}: ${code}: ${message}`)
      if (options.json) console.log(jsonLine({ kernel: chosen.name, error: { code, message } }))
    }
  }
  if (written + failed === 0) fail(`no kernel in ${options.store} matches`)
  return failed === 0 ? 0 : 1
}

async function minimize(chosen: ChosenKernel, objects: readonly BpfObject[], path: string) {
  const btf = await chosen.btf()
  const minimized = minimizeBtf(btf, objects)
  await writeWhole(path, minimized)
  const { typeCount: types } = parseBtf(minimized)
  return { kernel: chosen.name, path, size: minimized.length, types, of: btf.bytes.length }
}

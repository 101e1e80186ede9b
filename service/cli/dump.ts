import { printHeader, printLayout } from '../../bpf/index.ts'
import type { CommonOptions } from './filter.ts'
import { openKernel } from './input.ts'
import { print } from './output.ts'

/** `btfmill dump`. Returns the exit status. */
export async function run(
  what: string,
  { store, type, modules }: CommonOptions & { type?: string; modules?: boolean },
): Promise<number> {
  const btf = await openKernel(what, store, modules)
  if (type === undefined) {
    await print(printHeader(btf))
    return 0
  }
  const name = withoutTag(type)
  const id = btf.find(name, 'STRUCT') ?? btf.find(name, 'UNION') ?? btf.find(name)
  if (id === undefined) {
    console.error(`btfmill: there is no type ${name} in ${what}`)
    return 1
  }
  await print([printLayout(btf, id)])
  return 0
}

/** `struct task_struct` is `task_struct`. */
export function withoutTag(type: string): string {
  return type.replace(/^(struct|union|enum) /, '')
}

import { type Btf, openObject, printHeader, printLayout } from '../../bpf/index.ts'
import { jsonOf } from '../json.ts'
import { type CommonOptions, openKernel, readObject } from './input.ts'
import { linesOf, print, printable } from './output.ts'

interface DumpOptions extends CommonOptions {
  type?: string
  object?: readonly string[]
  base?: string
  withModules?: boolean
}

/** `btfmill dump`. Returns the exit status. */
export async function run(
  kernel: string,
  { type, object = [], base, withModules, json, ...source }: DumpOptions,
): Promise<number> {
  const btf = await openKernel(kernel, source, { base, withModules })
  if (type === undefined) {
    const files = await Promise.all(object.map(readObject))
    const objects = files.map(({ bytes }) => openObject(bytes))
    await print(
      json ? linesOf(typesOf(btf)) : printHeader(btf, objects.length > 0 ? { objects } : {}),
    )
    return 0
  }
  const id = findType(btf, withoutTag(type))
  if (id === undefined) {
    console.error(printable(`btfmill: no type ${withoutTag(type)} in ${kernel}`))
    return 1
  }
  await print(json ? linesOf([jsonOf(btf.type(id))]) : [printLayout(btf, id)])
  return 0
}

/** A struct or union comes before other types of that name. */
const findType = (btf: Btf, name: string): number | undefined =>
  btf.find(name, 'STRUCT') ?? btf.find(name, 'UNION') ?? btf.find(name)

/** Each type as JSON, in order of the ids by which types refer to each other. */
function* typesOf(btf: Btf): Generator<string> {
  for (const type of btf.types()) yield jsonOf(type)
}

/** The name of a type without its tag: of `struct task_struct`, `task_struct`. */
export function withoutTag(type: string): string {
  return type.replace(/^(struct|union|enum) /, '')
}

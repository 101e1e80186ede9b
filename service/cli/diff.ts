import { diffBtf, printDiff } from '../../bpf/index.ts'
import { jsonOf } from '../json.ts'
import { withoutTag } from './dump.ts'
import type { CommonOptions } from './filter.ts'
import { openKernel } from './input.ts'
import { print } from './output.ts'

/** `btfmill diff`. Returns the exit status: 0 also where something differs. */
export async function run(
  a: string,
  b: string,
  { store, type, json }: CommonOptions & { type?: string },
): Promise<number> {
  const [old, now] = [await openKernel(a, store), await openKernel(b, store)]
  const name = type && withoutTag(type)
  if (name && old.find(name) === undefined && now.find(name) === undefined) {
    console.error(`btfmill: there is no type ${name} in ${a} or ${b}`)
    return 1
  }
  const diff = diffBtf(old, now, name ? { type: name } : {})
  await print(json ? [`${jsonOf(diff)}\n`] : printDiff(diff))
  return 0
}

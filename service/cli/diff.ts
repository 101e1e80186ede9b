import { type BtfDiff, diffBtf, printDiff } from '../../bpf/index.ts'
import { jsonOf } from '../json.ts'
import { withoutTag } from './dump.ts'
import { type CommonOptions, openKernel } from './input.ts'
import { print, printable } from './output.ts'

interface DiffOptions extends CommonOptions {
  type?: string
  base?: string
  newBase?: string
}

/** `btfmill diff`. Returns the exit status: 1 if anything differs. */
export async function run(
  a: string,
  b: string,
  { type, json, base, newBase = base, ...source }: DiffOptions,
): Promise<number> {
  const old = await openKernel(a, source, { base })
  const now = await openKernel(b, source, { base: newBase })
  const name = type && withoutTag(type)
  if (name && old.find(name) === undefined && now.find(name) === undefined) {
    console.error(printable(`btfmill: no type ${name} in ${a} or ${b}`))
    return 1
  }
  const diff = diffBtf(old, now, name ? { type: name } : {})
  await print(json ? [`${jsonOf(diff)}\n`] : printDiff(diff))
  return isEmpty(diff) ? 0 : 1
}

function isEmpty({ byteOrder, pointerSize, added, removed, changed }: BtfDiff): boolean {
  return !byteOrder && !pointerSize && added.length + removed.length + changed.length === 0
}

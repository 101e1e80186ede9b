import {
  type Btf,
  type BtfDiff,
  diffBtf,
  minimizeBtf,
  openObject,
  parseBtf,
  printDiff,
  type TypeSort,
} from '../../bpf/index.ts'
import { jsonOf } from '../json.ts'
import { withoutTag } from './dump.ts'
import { type CommonOptions, openKernel, readObject } from './input.ts'
import { print, printable } from './output.ts'

interface DiffOptions extends CommonOptions {
  type?: string
  kind?: TypeSort[]
  object?: string[]
  base?: string
  newBase?: string
}

/** `btfmill diff`. Returns the exit status: 1 if anything differs. */
export async function run(
  a: string,
  b: string,
  { type, kind, object = [], json, base, newBase = base, ...source }: DiffOptions,
): Promise<number> {
  const reduce = await reducer(object)
  const old = reduce(await openKernel(a, source, { base }))
  const now = reduce(await openKernel(b, source, { base: newBase }))
  const name = type && withoutTag(type)
  if (name && old.find(name) === undefined && now.find(name) === undefined) {
    console.error(printable(`btfmill: no type ${name} in ${a} or ${b}`))
    return 1
  }
  const diff = ofKinds(diffBtf(old, now, name ? { type: name } : {}), kind)
  await print(json ? [`${jsonOf(diff)}\n`] : printDiff(diff))
  return isEmpty(diff) ? 0 : 1
}

/** Gives of a BTF what objects use; without objects, all of it. Errors: those of `readObject`. */
async function reducer(paths: readonly string[]): Promise<(btf: Btf) => Btf> {
  if (paths.length === 0) return (btf) => btf
  const files = await Promise.all(paths.map(readObject))
  const objects = files.map(({ bytes }) => openObject(bytes))
  return (btf) => parseBtf(minimizeBtf(btf, objects))
}

/** The differences of some kinds. */
function ofKinds(diff: BtfDiff, kinds: readonly TypeSort[] | undefined): BtfDiff {
  if (!kinds) return diff
  const isOf = ({ kind }: { kind: TypeSort }) => kinds.includes(kind)
  const { added, removed, changed } = diff
  return {
    ...diff,
    added: added.filter(isOf),
    removed: removed.filter(isOf),
    changed: changed.filter(isOf),
  }
}

function isEmpty({ byteOrder, pointerSize, added, removed, changed }: BtfDiff): boolean {
  return !byteOrder && !pointerSize && added.length + removed.length + changed.length === 0
}

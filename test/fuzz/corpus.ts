/* The inputs for mutation: raw BTF, ELF files with BTF, and BPF objects of both byte orders, all from the fixtures. */
import { readFileSync } from 'node:fs'
import { type Btf, encodeDelta, parseBtf } from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture, fixtureNames } from '../helpers/fixtures.ts'
import { type Anatomy, anatomyOfBtf, anatomyOfDelta, anatomyOfElf } from './field.ts'

/** The kind of an input, which decides the entry points that read it. */
export type InputSort = 'btf' | 'split btf' | 'vmlinux' | 'object' | 'delta'

export interface Input {
  readonly name: string
  readonly sort: InputSort
  readonly bytes: Buffer
  readonly anatomy: Anatomy
}

/** The base of the corpus's split BTF. */
export const base: Btf = parseBtf(fixture('types-x86_64.btf'))

/** BTF with types of an unknown kind, which only the layout section describes. */
const withLayout = craft(
  [1, info(1), 4, 0x01000020, 5, info(20, 2), 0, 7, 8, 9, 1, info(4, 1), 4, 5, 1, 0].concat(
    Array.from({ length: 21 }, (_, kind) => (kind === 20 ? 0x0404 : 0)),
  ),
  '\0int\0new\0',
  [16 * 4, 21 * 4],
)
withLayout.writeUInt32LE(16 * 4, 12)

const btfs: readonly (readonly [name: string, bytes: Buffer])[] = [
  ...fixtureNames(/^types-.*\.btf$/).map((name) => [name, fixture(name)] as const),
  ...[...littleKernels()].map(([name, path]) => [`kernel-${name}`, readFileSync(path)] as const),
  ['layout', withLayout],
]

const objects: readonly (readonly [name: string, bytes: Buffer])[] = [
  ...fixtureNames(/^types-.*\.o$/).map((name) => [name, fixture(name)] as const),
  ...(['el', 'eb'] as const).flatMap((order) =>
    [...coreObjects(order)].map(
      ([name, path]) => [`${name}.${order}.o`, readFileSync(path)] as const,
    ),
  ),
]

function elf(sort: InputSort, name: string, bytes: Buffer): Input {
  return { name, sort, bytes, anatomy: anatomyOfElf(bytes) }
}

const module = fixture('module-x86_64.btf')

/** The parents of the corpus's deltas. */
export const parents: readonly Buffer[] = [
  fixture('types-x86_64.btf'),
  ...[...littleKernels().values()].map((path) => readFileSync(path)),
]

/** Roots, and deltas from each parent to the next two: of another byte order or pointer size, and of shuffled types. */
const deltas: readonly (readonly [name: string, bytes: Buffer])[] = parents.flatMap((parent, i) => {
  const children = [1, 2].map((step) => parents[(i + step) % parents.length]!)
  return [
    [`root ${i}`, Buffer.from(encodeDelta(parent))] as const,
    ...children.map((child) => [`delta ${i}`, Buffer.from(encodeDelta(child, parent))] as const),
  ]
})

/** The parent of the delta of an input by this name; undefined for a root. */
export const parentOf = (name: string): Buffer | undefined =>
  parents[Number(/^delta (\d+)$/.exec(name)?.[1])]

export const corpus: readonly Input[] = [
  ...btfs.map(([name, bytes]): Input => {
    return { name, sort: 'btf', bytes, anatomy: anatomyOfBtf(bytes) }
  }),
  { name: 'module', sort: 'split btf', bytes: module, anatomy: anatomyOfBtf(module, base) },
  ...fixtureNames(/^vmlinux-/).map((name) => elf('vmlinux', name, fixture(name))),
  ...objects.map(([name, bytes]) => elf('object', name, bytes)),
  ...deltas.map(([name, bytes]): Input => {
    return { name, sort: 'delta', bytes, anatomy: anatomyOfDelta(bytes) }
  }),
]

/*
 * Modules with a distilled base, and a small kernel to relocate them onto: one module for each rule of libbpf's
 * `btf__relocate`, by a title that tells the rule.
 */
import { type Btf, type BtfType, type ByteOrder, encodeBtf, parseBtf } from '../../bpf/index.ts'

type Draft<T = BtfType> = T extends BtfType ? Omit<T, 'id'> : never

const int = (name: string, size: number, rest = {}): Draft => ({
  ...{ kind: 'INT', name, size, signed: true, char: false, bool: false },
  ...{ bits: size * 8, bitOffset: 0 },
  ...rest,
})
const struct = (name: string, size: number, members: readonly [string, number][] = []): Draft => ({
  ...{ kind: 'STRUCT', name, size, flag: false },
  members: members.map(([name, type], i) => ({ name, type, bitOffset: i * 64, bitfieldSize: 0 })),
})
const union = (name: string, size: number): Draft => {
  return { kind: 'UNION', name, size, flag: false, members: [] }
}
const forward = (name: string, of: 'struct' | 'union' = 'struct'): Draft => {
  return { kind: 'FWD', name, of }
}
const enumeration = (name: string, size: number): Draft => {
  return { kind: 'ENUM', name, size, signed: false, values: [] }
}
const reference = (kind: 'PTR' | 'CONST' | 'TYPEDEF', type: number, name = ''): Draft => {
  return { kind, name, type, flag: false }
}

const numbered = (types: readonly Draft[], start = 1): BtfType[] =>
  types.map((type, i) => ({ ...type, id: start + i }) as BtfType)

const KERNEL: readonly Draft[] = [
  int('int', 4),
  int('long unsigned int', 8, { signed: false }),
  struct('list_head', 16, [
    ['next', 4],
    ['prev', 4],
  ]),
  reference('PTR', 3),
  struct('task_struct', 64),
  struct('twice', 8),
  struct('twice', 16),
  struct('same', 8),
  union('same', 8),
  forward('opaque'),
  forward('either', 'union'),
  { kind: 'ENUM64', name: 'wide', size: 8, signed: false, values: [{ name: 'W', value: 1n }] },
  { kind: 'ENUM', name: 'small', size: 4, signed: false, values: [{ name: 'S', value: 1 }] },
  { kind: 'FLOAT', name: 'double', size: 8 },
  union('value', 8),
  {
    ...{ kind: 'STRUCT', name: 'bits', size: 4, flag: true },
    members: [{ name: 'b', type: 1, bitOffset: 0, bitfieldSize: 3 }],
  },
  int('char', 1, { signed: false }),
]

/** Types that only use distilled ones: `first` is the id of the first of them. */
type Use = (first: number) => readonly Draft[]

/** A struct with a pointer to each distilled type. */
const pointed = (count: number): Use => {
  const ids = Array.from({ length: count }, (_, i) => i)
  return (first) => [
    ...ids.map((i) => reference('PTR', i + 1)),
    struct(
      'own',
      count * 8,
      ids.map((i) => [`m${i}`, first + i]),
    ),
  ]
}
const embedded: Use = () => [struct('own', 128, [['member', 1]])]
const deeplyEmbedded: Use = (first) => [
  reference('CONST', 1),
  reference('TYPEDEF', first, 'alias'),
  { kind: 'ARRAY', name: '', type: first + 1, indexType: first + 1, length: 2 },
  struct('own', 128, [['member', first + 2]]),
]

const RULES: Readonly<Record<string, readonly [distilled: readonly Draft[], use?: Use]>> = {
  'types with the same names and sizes are found': [
    [
      int('int', 4),
      struct('list_head', 16),
      struct('task_struct', 64),
      int('long unsigned int', 8, { signed: false }),
      { kind: 'FLOAT', name: 'double', size: 8 },
      enumeration('small', 4),
      union('value', 8),
    ],
  ],
  'functions, variables, sections and tags keep their targets': [
    [int('int', 4), struct('task_struct', 64)],
    (first) => [
      reference('PTR', 2),
      {
        ...{ kind: 'FUNC_PROTO', name: '', type: 1 },
        parameters: [
          { name: 'task', type: first },
          { name: '', type: 0 },
        ],
      },
      { kind: 'FUNC', name: 'own_init', type: first + 1, linkage: 'static' },
      { kind: 'DECL_TAG', name: 'own_tag', type: first + 2, component: -1, flag: false },
      { kind: 'VAR', name: 'own_state', type: 1, linkage: 'global' },
      {
        ...{ kind: 'DATASEC', name: '.data', size: 4 },
        variables: [{ type: first + 4, offset: 0, size: 4 }],
      },
      {
        kind: 'ENUM64',
        name: 'own_enum',
        size: 8,
        signed: false,
        values: [{ name: 'A', value: 1n }],
      },
    ],
  ],
  'a struct behind a pointer may change its size': [[struct('task_struct', 72)]],
  'an embedded struct keeps its size': [[struct('task_struct', 64)], embedded],
  'an embedded struct of another size is refused': [[struct('task_struct', 72)], embedded],
  'a struct is embedded through arrays, typedefs and qualifiers': [
    [struct('task_struct', 72)],
    deeplyEmbedded,
  ],
  'of two structs with one name that of the same size is taken': [[struct('twice', 16)]],
  'of two structs with one name none of another size is taken': [[struct('twice', 12)]],
  'a struct and a union of one name and size are ambiguous': [[struct('same', 8)]],
  'a declaration stands for a declaration': [[forward('opaque'), forward('either', 'union')]],
  'a declaration stands for a struct': [[forward('task_struct')]],
  'a declaration of either sort stands for a struct': [[forward('task_struct', 'union')]],
  'a declaration does not stand for a union': [[forward('value', 'union')]],
  'a declaration does not stand for a struct with bitfields': [[forward('bits')]],
  'a declaration does not stand for one of two structs': [[forward('twice')]],
  'a struct stands for a declaration': [[struct('opaque', 8)]],
  'an enum stands for one of 64 bits': [[enumeration('wide', 8)]],
  'an enum of another size is refused': [[enumeration('small', 8)]],
  'an integer of another size is refused': [[int('int', 8)]],
  'an integer of another sign is refused': [[int('char', 1)]],
  'an integer of other bits is the same': [[int('int', 4, { bits: 3 })]],
  'a float of another size is refused': [[{ kind: 'FLOAT', name: 'double', size: 4 }]],
  'a struct stands for any type of its name and size': [[struct('int', 4)]],
  'a struct and its declaration stand for one struct': [
    [forward('list_head'), struct('list_head', 16)],
  ],
  'a type that the kernel does not have is refused': [[struct('nowhere', 16)]],
  'an anonymous type is no distilled type': [[struct('', 16)]],
  'a pointer is no distilled type': [[int('int', 4), reference('PTR', 1)]],
  'a member may share the name of a type': [
    [struct('list_head', 16), int('int', 4)],
    (first) => [reference('PTR', 1), struct('own', 8, [['list_head', first]])],
  ],
  'a name that no distilled type has is refused': [
    [
      {
        kind: 'ENUM',
        name: 'small',
        size: 4,
        signed: false,
        values: [{ name: 'member', value: 0 }],
      },
    ],
    embedded,
  ],
}

/** A module over its distilled base, and a kernel. */
export interface DistilledCase {
  title: string
  kernel: Btf
  base: Uint8Array
  split: Uint8Array
}

/** All cases, in both byte orders. */
export const distilledCases: readonly DistilledCase[] = Object.entries(RULES).flatMap(
  ([rule, [types, use = pointed(types.length)]]) =>
    (['little', 'big'] as const).map((byteOrder: ByteOrder) => {
      const base = encodeBtf(numbered(types), { byteOrder })
      const opened = parseBtf(base)
      const own = numbered(use(opened.endId), opened.endId)
      return {
        title: `${rule} (${byteOrder}-endian)`,
        kernel: parseBtf(encodeBtf(numbered(KERNEL), { byteOrder })),
        base,
        split: encodeBtf(own, { byteOrder, base: opened }),
      }
    }),
)

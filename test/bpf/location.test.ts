/*
 * LOC_PARAM, LOC_PROTO and LOCSEC, of which kernels from 7.4 on have a `.BTF.inline`. The words are those that libbpf
 * writes for the kernel's own test (tools/testing/selftests/bpf/prog_tests/bpftool_btf_dump.c `mk_loc_btf`).
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type Btf,
  type BtfErrorCode,
  diffBtf,
  encodeBtf,
  mergeBtf,
  minimizeBtf,
  openObject,
  parseBtf,
  printHeader,
  printLayout,
  relocateBase,
  toDialect,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { caseFile } from '../helpers/cases.ts'
import { craft, info } from '../helpers/craft.ts'
import { dump } from '../helpers/fixtures.ts'

const STRINGS = '\0int\0arg\0foo\0inline.text\0'
const [INT, ARG, FOO, INLINE] = [1, 5, 9, 13]
const FLAGS = { signed: 0x1, constant: 0x2, address: 0x4, register: 0x8, deref: 0x10, offset: 0x20 }
const { signed, constant, address, register, deref, offset } = FLAGS
const FRAME = 0xffffffff

const TYPES = [
  [INT, info(1), 4, (1 << 24) | 32],
  [0, info(13, 5), 1, ...Array(5).fill([ARG, 1]).flat()],
  [FOO, info(12), 2],
  [0, info(20, 1), 4, register, 1],
  [0, info(20, 2), 8, register | deref | offset, 2, 0x10],
  [0, info(20, 2), 8, register | offset | signed, FRAME, 0xfffffff0],
  [0, info(20, 2), 8, address | constant, 0x9abcdef0, 0x12345678],
  [0, info(20, 2), 8, constant, 0xfeedface, 0xdeadbeef],
  [0, info(21, 5), 0, 4, 5, 6, 0, 8],
  [INLINE, info(22, 2), 0, 3, 9, 64, 3, 9, 0xfffffffc],
]
const written = (byteOrder: 'little' | 'big'): Buffer => craft(TYPES.flat(), STRINGS, [], byteOrder)
const ORDERS = ['little', 'big'] as const

/** As bpftool prints them, but for the values of a LOC_PARAM. */
const DUMPED = [
  "[4] LOC_PARAM '(anon)' size=4 flags=0x8 vlen=1",
  "[5] LOC_PARAM '(anon)' size=8 flags=0x38 vlen=2",
  "[6] LOC_PARAM '(anon)' size=8 flags=0x29 vlen=2",
  "[7] LOC_PARAM '(anon)' size=8 flags=0x6 vlen=2",
  "[8] LOC_PARAM '(anon)' size=8 flags=0x2 vlen=2",
  "[9] LOC_PROTO '(anon)' vlen=5",
  ...[4, 5, 6, 0, 8].map((id) => `\ttype_id=${id}`),
  "[10] LOCSEC 'inline.text' vlen=2",
  "\tname='foo' func_type_id=3 loc_proto_type_id=9 offset=64",
  "\tname='foo' func_type_id=3 loc_proto_type_id=9 offset=4294967292",
]

t.test('places of inlined calls are read and written in both byte orders', (t) => {
  for (const order of ORDERS) {
    const bytes = written(order)
    const btf = parseBtf(bytes)
    t.same(btf.kinds(), ['INT', 'FUNC', 'FUNC_PROTO', 'LOC_PARAM', 'LOC_PROTO', 'LOCSEC'], order)
    t.match(btf.type(6), { kind: 'LOC_PARAM', size: 8, flags: 0x29, words: [FRAME, 0xfffffff0] })
    t.match(btf.type(9), { kind: 'LOC_PROTO', places: [4, 5, 6, 0, 8] })
    t.match(btf.type(10), { name: 'inline.text', locations: [{ func: 3, proto: 9, offset: 64 }] })
    t.same(dump(btf).trimEnd().split('\n').slice(-DUMPED.length), DUMPED)
    const { strings, byteOrder } = btf
    t.same(encodeBtf(btf.types(), { strings, byteOrder }), bytes, 'byte for byte')
  }
  t.end()
})

t.test('an id out of bounds in a place or a list of inlined calls is refused', (t) => {
  const refused = (words: number[]): BtfErrorCode | 'none' => {
    try {
      parseBtf(craft(words, STRINGS))
      return 'none'
    } catch (error) {
      return (error as { code: BtfErrorCode }).code
    }
  }
  t.equal(refused([0, info(20, 1), 4, 8, 0xffffffff]), 'none', 'a value is no name and no id')
  t.equal(refused([0, info(20, 1), 4, 8]), 'invalid_type', 'a value is missing')
  t.equal(refused([0, info(20), 4]), 'invalid_type', 'the flags are missing')
  t.equal(refused([0, info(21, 2), 0, 0, 2]), 'invalid_type_id')
  t.equal(refused([0, info(22, 1), 0, 2, 0, 0]), 'invalid_type_id', 'the function')
  t.equal(refused([0, info(22, 1), 0, 1, 2, 0]), 'invalid_type_id', 'the places')
  t.equal(refused([0, info(22, 1), 0, 1, 0x80000000, 0]), 'invalid_type_id')
  t.equal(refused([0, info(22, 2), 0, 1, 1, 0]), 'invalid_type', 'a call is missing')
  t.equal(refused([99, info(22), 0]), 'invalid_name')
  t.equal(refused([0, info(23), 0]), 'invalid_kind', 'the next kind is not known')
  t.end()
})

/** Split BTF over another, with one inlined call of `name`. */
function inlinesOver(base: Btf, name: string): Btf {
  const first = base.endId
  const [proto, func, param, places, section] = [0, 1, 2, 3, 4].map((i) => first + i)
  const types = [
    { kind: 'FUNC_PROTO', id: proto!, name: '', type: 0, parameters: [{ name: 'arg', type: 1 }] },
    { kind: 'FUNC', id: func!, name, type: proto!, linkage: 'static' },
    { kind: 'LOC_PARAM', id: param!, name: '', size: 4, flags: register, words: [7] },
    { kind: 'LOC_PROTO', id: places!, name: '', places: [param!] },
    {
      kind: 'LOCSEC',
      id: section!,
      name: 'inline.text',
      locations: [{ func: func!, proto: places!, offset: 8 }],
    },
  ] as const
  const bytes = encodeBtf(types, { base, byteOrder: base.byteOrder })
  return parseBtf(bytes, { base })
}

t.test('merging keeps equal places once and the calls of each module', (t) => {
  for (const order of ORDERS) {
    const base = parseBtf(written(order))
    const modules = ['one', 'two'].map((name) => inlinesOver(base, name))
    const merged = parseBtf(mergeBtf(base, modules))
    t.equal(merged.countOf('LOC_PARAM'), base.countOf('LOC_PARAM') + 1)
    t.equal(merged.countOf('LOC_PROTO'), base.countOf('LOC_PROTO') + 1)
    t.equal(merged.countOf('LOCSEC'), 3)
    const called = [...merged.types()].flatMap((type) =>
      type.kind === 'LOCSEC' ? type.locations.map(({ func }) => merged.name(func)) : [],
    )
    t.same(called, ['foo', 'foo', 'one', 'two'])
    const again = parseBtf(mergeBtf(base, [modules[0]!, inlinesOver(base, 'one')]))
    t.equal(again.countOf('LOCSEC'), 3, 'equal lists of different modules are different calls')
  }
  t.end()
})

t.test('renumbering maps the ids of places and calls', (t) => {
  const btf = parseBtf(written('little'))
  const moved = (id: number) => renumbered(btf.type(id), (old) => old + 100)
  t.match(moved(4), { id: 104, words: [1] })
  t.match(moved(9), { id: 109, places: [104, 105, 106, 0, 108] })
  t.match(moved(10), { id: 110, locations: [{ func: 103, proto: 109, offset: 64 }, {}] })
  t.end()
})

t.test('a module with inlined calls moves from its distilled base to the kernel', (t) => {
  const int = { kind: 'INT', name: 'int', size: 4, signed: true, char: false, bool: false } as const
  const distilled = parseBtf(encodeBtf([{ ...int, id: 1, bits: 32, bitOffset: 0 }]))
  const kernel = parseBtf(written('little'))
  const moved = parseBtf(relocateBase(inlinesOver(distilled, 'one'), kernel), { base: kernel })
  t.match(moved.type(14), { kind: 'LOC_PROTO', places: [13] })
  t.match(moved.type(15), { locations: [{ func: 12, proto: 14, offset: 8 }] })
  t.equal(moved.name(12), 'one')
  t.end()
})

t.test('a dialect leaves the ids of places and calls, and nothing else', (t) => {
  for (const order of ORDERS) {
    const btf = parseBtf(written(order))
    for (const dialect of ['libbpf-0.3', 'libbpf-1.0'] as const) {
      const old = parseBtf(toDialect(btf, dialect))
      t.equal(old.endId, btf.endId)
      t.same(old.type(3), btf.type(3))
      for (let id = 4; id < old.endId; id++) {
        t.match(old.type(id), { kind: 'STRUCT', name: '', size: 0, members: [] })
      }
    }
  }
  const locations = Array(1 << 16).fill({ func: 0, proto: 0, offset: 0 })
  const many = parseBtf(encodeBtf([{ kind: 'LOCSEC', id: 1, name: 'inline.text', locations }]))
  t.same(parseBtf(toDialect(many, 'libbpf-1.0')).kinds(), ['STRUCT'], 'however many calls')
  t.end()
})

t.test('printing, comparing and minimising pass over places and calls', (t) => {
  const names = ['int', 'arg', 'foo', 'inline.text', 'task_struct', 'pid', 'good_state', 'n']
  const strings = `\0${names.join('\0')}\0`
  const at = (name: string) => strings.indexOf(`\0${name}\0`) + 1
  const structs = [
    [at('task_struct'), info(4, 1), 64, at('pid'), 1, 40 * 8],
    [at('good_state'), info(4, 1), 64, at('n'), 1, 16 * 8],
  ]
  const object = openObject(readFileSync(caseFile('module-type.o')))
  const plain = parseBtf(craft([...TYPES.slice(0, 3), ...structs].flat(), strings))
  for (const order of ORDERS) {
    const kernel = parseBtf(craft([...TYPES, ...structs].flat(), strings, [], order))
    t.match([...printHeader(kernel)].join(''), /struct task_struct \{[^}]*int pid;[^}]*\};/)
    t.equal(
      printLayout(kernel, 10),
      '/* inline.text, inlined calls: 2 */\n/* 0x00000040 foo */\n/* 0xfffffffc foo */\n',
    )
    for (const id of [4, 9]) t.type(printLayout(kernel, id), 'string')
    t.same(diffBtf(kernel, plain).removed, [])
    t.same(diffBtf(kernel, plain).changed, [])
    if (order === 'big') continue
    t.same(minimizeBtf(kernel, [object]), minimizeBtf(plain, [object]))
    t.same(parseBtf(minimizeBtf(kernel, [object])).kinds(), ['INT', 'STRUCT'])
  }
  t.end()
})

t.test('BTF with any word changed is refused with a code, or passes through everything', (t) => {
  const words = TYPES.flat()
  let read = 0
  for (let at = 0; at < words.length; at++) {
    for (const value of [0, 1, 10, 11, 0xffffffff, info(20, 2), info(21, 2), info(22, 1)]) {
      try {
        const btf = parseBtf(craft(words.with(at, value), STRINGS))
        read++
        const { strings } = btf
        parseBtf(encodeBtf(btf.types(), { strings }))
        for (const dialect of ['libbpf-0.3', 'libbpf-1.7'] as const) toDialect(btf, dialect)
        mergeBtf(btf, [inlinesOver(btf, 'one')])
        for (let id = 1; id < btf.endId; id++) printLayout(btf, id)
        diffBtf(btf, parseBtf(written('little')))
      } catch (error) {
        if ((error as Error).name !== 'BtfError') t.fail(`word ${at} is ${value}: ${error}`)
      }
    }
  }
  t.ok(read > words.length, `${read} read`)
  t.end()
})

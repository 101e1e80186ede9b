import t from 'tap'
import { compareLayouts, layoutOf, parseBtf, readBtf, resolve, sizeOf } from '../../bpf/index.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture } from '../helpers/fixtures.ts'

const x86 = parseBtf(fixture('types-x86_64.btf'))
const i386 = parseBtf(fixture('types-i386.btf'))

function member(btf: typeof x86, name: string): number {
  const type = btf.type(btf.find('everything', 'STRUCT')!)
  const found = type.kind === 'STRUCT' ? type.members.find((m) => m.name === name) : undefined
  return found?.type ?? -1
}

t.test('sizeOf follows typedefs, qualifiers, arrays and the pointer size', (t) => {
  t.equal(sizeOf(x86, member(x86, 'qualified')), 4)
  t.equal(sizeOf(x86, member(x86, 'matrix')), 48)
  t.equal(sizeOf(x86, member(x86, 'table')), 16)
  t.equal(sizeOf(i386, member(i386, 'table')), 8)
  t.equal(sizeOf(x86, member(x86, 'large')), 8)
  t.equal(sizeOf(x86, member(x86, 'rest')), 0)
  t.equal(sizeOf(x86, 0), undefined, 'void has no size')
  t.equal(sizeOf(x86, x86.find('forward', 'FWD')!), undefined)
  t.equal(sizeOf(x86, x86.find('entry', 'FUNC')!), undefined)
  t.equal(x86.name(resolve(x86, member(x86, 'qualified'))), 'unsigned int')
  t.equal(resolve(x86, member(x86, 'callback')), resolve(x86, x86.find('callback_t')!))
  t.end()
})

t.test('endless type chains and unbounded sizes are errors', (t) => {
  const loop = parseBtf(craft([1, info(8), 2, 1, info(8), 1], '\0t\0'))
  t.throws(() => sizeOf(loop, 1), { code: 'cycle' })
  t.throws(() => resolve(loop, 1), { code: 'cycle' })
  const huge = parseBtf(
    craft([0, info(16), 8, 0, info(3), 0, 1, 1, 1 << 16, 0, info(3), 0, 2, 1, 1 << 16]),
  )
  t.equal(sizeOf(huge, 2), 8 << 16)
  t.throws(() => sizeOf(huge, 3), { code: 'too_large' })
  t.end()
})

t.test('layouts of one source by two compilers are equal', (t) => {
  const bpf = readBtf(fixture('types-bpfel.o'))
  const { same, different, missing } = compareLayouts(x86, bpf)
  t.same([...different, ...missing], [])
  t.equal(same, 8)
  t.end()
})

t.test('differing layouts are found by size, offset, name or bitfield', (t) => {
  const of32 = compareLayouts(i386, x86)
  const names = of32.different.map((layout) => layout.name).sort()
  t.same(
    names,
    ['bits', 'everything', 'halves', 'list'],
    'structs with pointers, or u64 after u32, differ',
  )
  const int = [1, info(1), 4, 32]
  const struct = (name: number, offset: number, size = 8, bits = 0) =>
    parseBtf(craft([...int, 3, info(4, 1, 1), size, name, 1, (bits << 24) | offset], '\0a\0s\0'))
  const base = struct(1, 32)
  t.equal(compareLayouts(base, struct(1, 32)).same, 1)
  for (const other of [struct(0, 32), struct(1, 0), struct(1, 32, 12), struct(1, 32, 8, 3)]) {
    t.equal(compareLayouts(base, other).different.length, 1)
  }
  t.equal(compareLayouts(base, parseBtf(craft(int, '\0a\0s\0'))).missing.length, 1)
  t.end()
})

t.test('bitfields from before kind_flag compare equal to new ones', (t) => {
  // u32 a:3, b:5 as pahole wrote them before kind_flag, and as it writes them now
  const old = parseBtf(
    craft(
      [1, info(1), 4, 3, 1, info(1), 4, (2 << 16) | 5, 5, info(4, 2), 4, 1, 1, 0, 3, 2, 1],
      '\0a\0b\0s\0',
    ),
  )
  const now = parseBtf(
    craft(
      [1, info(1), 4, 32, 5, info(4, 2, 1), 4, 1, 1, 3 << 24, 3, 1, (5 << 24) | 3],
      '\0a\0b\0s\0',
    ),
  )
  t.equal(compareLayouts(old, now).same, 1)
  const struct = old.type(3)
  t.same(struct.kind === 'STRUCT' && layoutOf(old, struct).members, [
    { name: 'a', offset: 0, bitfieldSize: 3 },
    { name: 'b', offset: 3, bitfieldSize: 5 },
  ])
  t.end()
})

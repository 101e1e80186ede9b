// Constants by their names: compared with the layouts of all types of a fixture, and with what a C compiler says.
import t from 'tap'
import { constantsOf, isConstantPath, layoutOf, parseBtf } from '../../bpf/index.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture } from '../helpers/fixtures.ts'

const MACHINES = ['x86_64', 'i386', 's390x']
const x86 = parseBtf(fixture('types-x86_64.btf'))
const constant = (path: string, btf = x86) => constantsOf(btf, [path])[0]

for (const machine of MACHINES)
  t.test(
    `${machine}: each named member and each size is as the layout of its type has it`,
    async (t) => {
      const btf = parseBtf(fixture(`types-${machine}.btf`))
      const [paths, expected]: [string[], unknown[]] = [[], []]
      for (const type of btf.types()) {
        if ((type.kind !== 'STRUCT' && type.kind !== 'UNION') || type.name === '') continue
        const { size, members } = layoutOf(btf, type)
        paths.push(type.name)
        expected.push({ kind: 'size', value: size })
        for (const { name, offset, bitfieldSize } of members.filter(({ name }) => name !== '')) {
          paths.push(`${type.name}.${name}`)
          expected.push(
            bitfieldSize > 0
              ? { kind: 'bitfield', value: offset, bits: bitfieldSize }
              : { kind: 'offset', value: offset / 8 },
          )
        }
      }
      t.ok(paths.length > 40)
      t.same(constantsOf(btf, paths), expected)
    },
  )

t.test('paths lead through members by value, anonymous or not, and to enumerators', async (t) => {
  t.same(constant('list.prev'), { kind: 'offset', value: 8 })
  t.same(constant('everything.list.prev'), { kind: 'offset', value: 8 })
  t.same(constant('color.GREEN'), { kind: 'enumerator', value: 7 })
  t.same(constant('signed_color.NEGATIVE'), { kind: 'enumerator', value: -2 })
  t.same(constant('large.LARGE'), { kind: 'enumerator', value: 0x1234567890 })
  t.same(constant('large_signed.MINIMUM'), { kind: 'enumerator', value: -0x1234567890 })
  t.same(constant('enum color'), { kind: 'size', value: 4 })
  t.same(constant('union value.GREEN'), { kind: 'missing' })
  t.same(constant('struct color.GREEN'), { kind: 'missing' })
  t.same(constant('u32'), { kind: 'size', value: 4 }, 'a typedef')
  t.same(constant('everything.gone'), { kind: 'missing' })
  t.same(constant('gone.everything'), { kind: 'missing' })
  t.same(constant('forward'), { kind: 'missing' }, 'only declared')
  t.same(constant('list.next.prev'), { kind: 'indirect' }, 'through a pointer')
  t.same(constant('everything.matrix.x'), { kind: 'indirect' }, 'through an array')
  t.same(constant('list.next; rm'), { kind: 'missing' })
  for (const path of ['a', 'struct a.b', 'enum  a.B', 'a.b.c_9']) t.ok(isConstantPath(path), path)
  for (const path of ['', '.', 'a.', '.a', 'a b', '9a', 'a..b', 'struct', 'a->b', 'a[0]'])
    t.equal(isConstantPath(path), path === 'struct', path)
})

t.test(
  'members of anonymous structs and bitfields in nested structs have their whole offset',
  async (t) => {
    const int = [1, info(1), 4, 32]
    // struct s { int a; union { struct { int b; int c:3; }; }; struct { int d:5 } n; }
    const btf = parseBtf(
      craft(
        [
          ...int,
          ...[0, info(4, 2, 1), 8, 5, 1, 0, 7, 1, (3 << 24) | 32], // 2: struct { b; c:3 }
          ...[0, info(5, 1), 8, 0, 2, 0], // 3: union
          ...[0, info(4, 1, 1), 4, 9, 1, (5 << 24) | 4], // 4: struct { d:5 }
          ...[11, info(4, 3), 16, 3, 1, 0, 0, 3, 32, 13, 4, 96], // 5: struct s
        ],
        '\0i\0a\0b\0c\0d\0s\0n\0',
      ),
    )
    const all = constantsOf(btf, ['s.a', 's.b', 's.c', 's.n.d', 's.d', 's.n'])
    t.same(all, [
      { kind: 'offset', value: 0 },
      { kind: 'offset', value: 4 },
      { kind: 'bitfield', value: 64, bits: 3 },
      { kind: 'bitfield', value: 100, bits: 5 },
      { kind: 'missing' },
      { kind: 'offset', value: 12 },
    ])
  },
)

t.test(
  'types of one name count as one while they agree, and are ambiguous where they do not',
  async (t) => {
    const int = [1, info(1), 4, 32]
    const struct = (offset: number, size: number) => [5, info(4, 1), size, 3, 1, offset]
    const btf = (...structs: number[][]) =>
      parseBtf(craft([...int, ...structs.flat()], '\0i\0a\0s\0'))
    const agree = btf(struct(32, 8), struct(32, 12))
    t.same(constant('s.a', agree), { kind: 'offset', value: 4 })
    t.same(constant('s', agree), { kind: 'ambiguous' })
    t.same(constant('s.a', btf(struct(32, 8), struct(0, 8))), { kind: 'ambiguous' })
    const other = [5, info(4, 0), 4]
    t.same(constant('s.a', btf(other, struct(32, 8))), { kind: 'offset', value: 4 }, 'one has it')
  },
)

t.test('types that no compiler writes end in bounded time', async (t) => {
  // each anonymous struct has the next twice: 2^200 ways to the last
  const count = 200
  const words = Array.from({ length: count }, (_, n) => {
    const next = Math.min(n + 2, count)
    return n === count - 1
      ? [n === 0 ? 1 : 0, info(4, 0), 0]
      : [n === 0 ? 1 : 0, info(4, 2), 0, 0, next, 0, 0, next, 0]
  }).flat()
  t.throws(() => constant('s.x', parseBtf(craft(words, '\0s\0'))), { code: 'cycle' })
  const wide = Array.from({ length: 20 }, (_, n) =>
    n === 19
      ? [0, info(4, 0), 0]
      : [
          n === 0 ? 1 : 0,
          info(4, 8),
          0,
          ...Array(8)
            .fill([0, n + 2, 0])
            .flat(),
        ],
  ).flat()
  t.same(constant('s.x', parseBtf(craft(wide, '\0s\0'))), { kind: 'missing' }, '8^20 ways')
})

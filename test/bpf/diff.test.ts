import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type Btf,
  type BtfDiff,
  BtfError,
  type BtfType,
  diffBtf,
  encodeBtf,
  type Member,
  parseBtf,
  printDiff,
  readBtf,
  type TypeChange,
} from '../../bpf/index.ts'
import { littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture, fixtureNames } from '../helpers/fixtures.ts'

const folder = t.testdir()

/** BTF that clang makes of C. It lacks types that no variable or function uses. */
function compiled(source: string, target = 'bpfel'): Btf {
  const object = join(folder, 'source.o')
  const args = [`--target=${target}`, '-g', '-O2', '-x', 'c', '-c', '-o', object, '-']
  execFileSync('clang-19', args, { input: source, stdio: ['pipe', 'ignore', 'pipe'] })
  return readBtf(readFileSync(object))
}

const diff = (a: string, b: string, type?: string) =>
  diffBtf(compiled(a), compiled(b), type === undefined ? {} : { type })

/** The change of the one type that changed. */
function changeOf({ added, removed, changed }: BtfDiff): TypeChange {
  if (changed.length !== 1 || added.length + removed.length > 0) {
    throw new Error(`not one change: ${JSON.stringify({ added, removed, changed })}`)
  }
  return changed[0]!
}

const text = (value: BtfDiff) => [...printDiff(value)].join('')

t.test('diffBtf reports added, removed, moved and retyped members, and the struct size', (t) => {
  const value = diff(
    'struct s { int gone; int moved, too; int typed; char kept; } s;',
    'struct s { long come; int moved, too; unsigned typed; char kept; } s;',
    's',
  )
  t.same(changeOf(value), {
    kind: 'struct',
    name: 's',
    size: { old: 20, new: 24 },
    members: {
      added: [{ name: 'come', type: 'long', offset: 0, bitfieldSize: 0, size: 8 }],
      removed: [{ name: 'gone', type: 'int', offset: 0, bitfieldSize: 0, size: 4 }],
      changed: [
        { name: 'moved', offset: { old: 32, new: 64 } },
        { name: 'too', offset: { old: 64, new: 96 } },
        {
          name: 'typed',
          type: { old: 'int', new: 'unsigned int' },
          offset: { old: 96, new: 128 },
        },
        { name: 'kept', offset: { old: 128, new: 160 } },
      ],
    },
  })
  t.equal(
    text(value),
    [
      '~ struct s: 20 → 24 bytes',
      '    - gone: int at 0',
      '    + come: long at 0',
      '    ~ moved … too: 2 members moved by +4',
      '    ~ typed: int → unsigned int; at 12 → 16',
      '    ~ kept: at 16 → 20',
      '0 removed, 0 added, 1 changed',
      '',
    ].join('\n'),
  )
  t.end()
})

t.test('diffBtf reports added and removed types of every kind', (t) => {
  const value = diff(
    'struct s { int a; } s; enum e { A } e; typedef int number; number n; void f(int a) {}',
    'union u { int a; } u; typedef float real; real r; struct fwd; struct fwd *p; int g(void) { return 0; }',
  )
  t.same(value, {
    added: [
      { kind: 'union', name: 'u' },
      { kind: 'typedef', name: 'real' },
      { kind: 'func', name: 'g' },
      { kind: 'fwd', name: 'fwd' },
      { kind: 'float', name: 'float' },
    ],
    removed: [
      { kind: 'struct', name: 's' },
      { kind: 'enum', name: 'e' },
      { kind: 'typedef', name: 'number' },
      { kind: 'func', name: 'f' },
    ],
    changed: [],
  })
  t.match(text(value), /^- struct s\n\+ union u\n- enum e\n/)
  t.end()
})

t.test('diffBtf reports changed values of 32-bit and 64-bit enums', (t) => {
  const value = diff(
    'enum e { GONE = -1, KEPT, MOVED, LARGE = 7 } e; enum wide { W = 1 } w;',
    'enum e { COME = -1, KEPT, MOVED = 0x10, LARGE = 7 } e; enum wide { W = 0x7fffffffffffffff } w;',
  )
  t.same(
    value.changed.filter(({ kind }) => kind === 'enum'),
    [
      {
        kind: 'enum',
        name: 'e',
        values: {
          added: [{ name: 'COME', value: '-1' }],
          removed: [{ name: 'GONE', value: '-1' }],
          changed: [{ name: 'MOVED', value: { old: '1', new: '16' } }],
        },
      },
      {
        kind: 'enum',
        name: 'wide',
        size: { old: 4, new: 8 },
        values: {
          added: [],
          removed: [],
          changed: [{ name: 'W', value: { old: '1', new: '9223372036854775807' } }],
        },
      },
    ],
  )
  t.match(text(value), '    ~ MOVED = 1 → 16\n')
  t.end()
})

t.test('the order of enum values and a missing sign flag are no change', (t) => {
  const of = (signed: boolean, ...names: string[]): Btf => {
    const values = names.map((name) => ({
      name,
      value: { LOW: signed ? -1 : 0xffffffff }[name] ?? 1,
    }))
    return parseBtf(encodeBtf([{ kind: 'ENUM', id: 1, name: 'e', size: 4, signed, values }]))
  }
  t.same(diffBtf(of(true, 'LOW', 'ONE'), of(false, 'ONE', 'LOW')).changed, [])
  t.end()
})

t.test('diffBtf reports signatures with parameter names, and the targets of typedefs', (t) => {
  const value = diff(
    'struct file; typedef int (*call)(int); call c; long f(struct file *file, const char *name) { return 0; }',
    'struct file; typedef int (*call)(long, ...); call c; long f(struct file *f) { return 0; }',
  )
  t.same(
    value.changed.map(({ kind, name, declaration }) => ({ kind, name, declaration })),
    [
      {
        kind: 'typedef',
        name: 'call',
        declaration: { old: 'int (*)(int)', new: 'int (*)(long, ...)' },
      },
      {
        kind: 'func',
        name: 'f',
        declaration: {
          old: 'long f(struct file *file, const char *name)',
          new: 'long f(struct file *f)',
        },
      },
    ],
  )
  t.end()
})

t.test('named types are compared by name, so a change is reported at its definition only', (t) => {
  const program = (inner: string) =>
    `struct inner { ${inner} }; struct by_value { struct inner inner; int last; } a; struct pointing { struct inner *p; } b;`
  t.same(
    diff(program('int a;'), program('unsigned a;')).changed.map(({ name }) => name),
    ['inner'],
  )
  t.same(diff(program('int a;'), program('long a;'), 'by_value').changed, [
    {
      kind: 'struct',
      name: 'by_value',
      size: { old: 8, new: 16 },
      members: {
        added: [],
        removed: [],
        changed: [
          { name: 'inner', size: { old: 4, new: 8 } },
          { name: 'last', offset: { old: 32, new: 64 } },
        ],
      },
    },
  ])
  t.end()
})

t.test('anonymous structs and unions are compared by their members', (t) => {
  const names = (a: string, b: string) => {
    const { members } = changeOf(diff(a, b, 's'))
    return {
      added: members?.added.map(({ name }) => name),
      removed: members?.removed.map(({ name }) => name),
      changed: members?.changed,
    }
  }
  const flat = 'struct s { int a; int b; } s;'
  const nested = 'struct s { int a; union { struct { int b; }; }; } s;'
  t.same(diff(flat, nested, 's').changed, [], 'b keeps its offset, as in C')
  t.same(names(nested, 'struct s { long a; union { struct { int c; int b; }; }; } s;'), {
    added: ['c'],
    removed: [],
    changed: [
      { name: 'a', type: { old: 'int', new: 'long' }, size: { old: 4, new: 8 } },
      { name: 'b', offset: { old: 32, new: 96 } },
    ],
  })
  t.same(
    names(
      'struct s { struct { int x; union { int y; }; } in; struct { int z; } *p; } s;',
      'struct s { struct { int x; union { int w; }; } in; struct { long z; } *p; } s;',
    ),
    {
      added: ['in.w'],
      removed: ['in.y'],
      changed: [{ name: 'p', type: { old: 'struct { int z; } *', new: 'struct { long z; } *' } }],
    },
  )
  t.same(
    changeOf(diff('typedef struct { int a; } t; t x;', 'typedef struct { int b, a; } t; t x;')),
    {
      kind: 'typedef',
      name: 't',
      size: { old: 4, new: 8 },
      members: {
        added: [{ name: 'b', type: 'int', offset: 0, bitfieldSize: 0, size: 4 }],
        removed: [],
        changed: [{ name: 'a', offset: { old: 0, new: 32 } }],
      },
    },
    'one that has its name from a typedef',
  )
  t.end()
})

t.test('diffBtf reports changed bitfields', (t) => {
  const value = diff(
    'struct s { int a : 3; int b : 4; int gone : 2; } s;',
    'struct s { int a : 5; int b : 4; } s;',
    's',
  )
  t.same(changeOf(value).members?.changed, [
    { name: 'a', bitfieldSize: { old: 3, new: 5 } },
    { name: 'b', offset: { old: 3, new: 5 } },
  ])
  t.match(text(value), '- gone: int:2 at 0:7\n')
  t.match(text(value), '~ a: 3 → 5 bits\n')
  t.match(text(value), '~ b: at 0:3 → 0:5\n')
  t.end()
})

t.test('diffBtf compares kernels of different pointer size and byte order', (t) => {
  const [x86, i686, s390x] = ['x86_64', 'i686', 's390x'].map((machine) =>
    readBtf(readFileSync(littleKernels().get(machine)!)),
  )
  const narrow = diffBtf(x86!, i686!)
  t.same(narrow.pointerSize, { old: 8, new: 4 })
  t.notOk(narrow.byteOrder)
  t.match(
    narrow.changed.find(({ name }) => name === 'list_head'),
    {
      size: { old: 16, new: 8 },
      members: {
        changed: [
          { name: 'next', size: { old: 8, new: 4 } },
          { name: 'prev', size: { old: 8, new: 4 }, offset: { old: 64, new: 32 } },
        ],
      },
    },
  )
  t.match(text(narrow), /^pointers: 8 → 4 bytes\n/)
  const swapped = diffBtf(x86!, s390x!)
  t.same(swapped.byteOrder, { old: 'little', new: 'big' })
  t.notOk(
    swapped.changed.some(({ name }) => name === 'list_head'),
    'it is the same on both',
  )
  t.match(text(swapped), /^byte order: little → big\n/)
  t.end()
})

const int: BtfType = {
  kind: 'INT',
  id: 1,
  name: 'int',
  size: 4,
  signed: true,
  char: false,
  bool: false,
  bits: 32,
  bitOffset: 0,
}

/** BTF with one struct `s` per list of members; all members are `int`. */
function structs(...lists: string[]): Btf {
  const types = lists.map((list, i): BtfType => {
    const members = list
      .split(' ')
      .map((name, at): Member => ({ name, type: 1, bitOffset: at * 32, bitfieldSize: 0 }))
    return { kind: 'STRUCT', id: i + 2, name: 's', size: members.length * 4, flag: false, members }
  })
  return parseBtf(encodeBtf([int, ...types]))
}

t.test('diffBtf pairs several types of one name by similarity', (t) => {
  t.same(
    diffBtf(structs('a b', 'x y', 'a b'), structs('x y', 'a b')),
    { added: [], removed: [], changed: [] },
    'the same ones in another order, or once more',
  )
  const { changed } = diffBtf(structs('a b c', 'x y z'), structs('x y w', 'a b d'))
  t.same(
    changed.map(({ members }) => [...members!.removed, ...members!.added].map(({ name }) => name)),
    [
      ['c', 'd'],
      ['z', 'w'],
    ],
    'what is most alike is one that changed',
  )
  t.same(diffBtf(structs('a b'), structs('a b', 'x')), {
    added: [{ kind: 'struct', name: 's' }],
    removed: [],
    changed: [],
  })
  const forward: BtfType = { kind: 'FWD', id: 3, name: 's', of: 'struct' }
  const declared = parseBtf(encodeBtf([...structs('a b').types(), forward]))
  t.same(
    diffBtf(declared, structs('a b')).removed,
    [],
    'a declaration beside its definition is no change',
  )
  const many = Array.from({ length: 100 }, (_, i) => `m${i}`)
  const others = diffBtf(structs(...many), structs(...many.map((name) => `${name}x`)))
  t.equal(others.changed.length, 100, 'the number of pairs is bounded')
  t.end()
})

/** The diff in the other direction. */
function mirrored(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(mirrored)
  if (typeof value !== 'object' || value === null) return value
  const mirror: Record<string, string> = {
    added: 'removed',
    removed: 'added',
    old: 'new',
    new: 'old',
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, of]) => [mirror[key] ?? key, mirrored(of)]),
  )
}

/** A diff as text, sorted, since changed elements are in the order of the newer side. */
function unordered(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(unordered).sort()}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  return `{${Object.entries(value)
    .map(([key, of]) => `${key}:${unordered(of)}`)
    .sort()}}`
}

t.test('a BTF does not differ from itself, and a reversed diff is the diff of the reverse', (t) => {
  const files = [
    ...[...littleKernels().values()].map((path) => readFileSync(path)),
    ...fixtureNames(/^types-.*\.(btf|o)$/).map(fixture),
  ].map((bytes) => readBtf(bytes))
  for (const a of files) {
    t.same(diffBtf(a, a), { added: [], removed: [], changed: [] })
    for (const b of files) {
      const forth = diffBtf(a, b)
      t.equal(unordered(mirrored(diffBtf(b, a))), unordered(forth))
      for (const change of forth.changed) {
        t.ok(
          Object.keys(change).length > 2,
          `the change of ${change.kind} ${change.name} has details`,
        )
      }
      t.same(JSON.parse(JSON.stringify(forth)), forth, 'the diff survives JSON')
    }
  }
  t.end()
})

t.test('diffBtf ends with an error or a bounded result for hostile BTF', (t) => {
  const own = parseBtf(craft([1, info(4, 1), 4, 0, 2, 0, 0, info(4, 1), 4, 0, 2, 0], '\0s\0'))
  t.throws(() => diffBtf(own, own), { code: 'cycle' }, 'an anonymous struct in itself')
  // each contains the next twice
  const words = Array.from({ length: 50 }, (_, i) => [
    ...[i === 0 ? 1 : 0, info(4, 2), 4],
    ...[0, Math.min(i + 2, 51), 0, 0, Math.min(i + 2, 51), 0],
  ]).flat()
  const doubling = parseBtf(craft([...words, 0, info(4, 0), 4], '\0s\0'))
  t.throws(() => diffBtf(doubling, doubling), { code: 'too_large' })
  const long = `\0${'n'.repeat(60_000)}\0`
  const named = Array.from({ length: 1000 }, (_, i) => [1 + i, info(7), 0]).flat()
  t.throws(
    () => parseBtf(craft(named, long)),
    { code: 'too_large' },
    'names that are tails of one long string',
  )
  const bell = diffBtf(parseBtf(craft([], '\0')), parseBtf(craft([1, info(7), 0], '\0\x1b[2J\0')))
  t.match(text(bell), '+ fwd ?[2J\n', 'a name cannot send control characters to the terminal')
  t.end()
})

t.test('diffBtf of mutated BTF gives a value or a BtfError', (t) => {
  const whole = fixture('types-x86_64.btf')
  const sound = parseBtf(whole)
  const { start, end } = sound.header.types
  let values = 0
  for (let seed = 1; seed <= 2000; seed++) {
    const bytes = Buffer.from(whole)
    const at = start + ((seed * 52) % (end - start - 4))
    bytes.writeUInt32LE(Math.imul(seed, 0x9e3779b1) >>> (seed % 32), at)
    try {
      const value = diffBtf(sound, parseBtf(bytes))
      if (text(value).length > 0) values++
    } catch (error) {
      if (!(error instanceof BtfError)) throw error
    }
  }
  t.ok(values > 100, `${values} mutations were read`)
  t.end()
})

t.test('types of one name are paired in one way, in whatever order a BTF has them', async (t) => {
  const btfOf = (...sizes: readonly number[]) =>
    parseBtf(
      encodeBtf(
        sizes.map((size, i) => ({
          ...({ kind: 'STRUCT', id: i + 1, name: 'twin', size, flag: false } as const),
          members: [],
        })),
      ),
    )
  const expected = diffBtf(btfOf(1, 2, 3), btfOf(4, 5, 6))
  t.equal(expected.changed.length, 3)
  const sizes = ({ changed }: BtfDiff) =>
    changed.map(({ size }) => `${size?.old} ${size?.new}`).sort()
  t.same(sizes(diffBtf(btfOf(3, 1, 2), btfOf(6, 5, 4))), sizes(expected))
})

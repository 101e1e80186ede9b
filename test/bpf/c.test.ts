import { execFileSync } from 'node:child_process'
import t from 'tap'
import {
  BtfError,
  type BtfType,
  compareLayouts,
  encodeBtf,
  parseBtf,
  printHeader,
  printLayout,
  readBtf,
} from '../../bpf/index.ts'
import { compile, roundTrip, type Triple, withAsserts } from '../helpers/compile.ts'
import { fixture, fixtureFolder } from '../helpers/fixtures.ts'

const machines: Readonly<Record<string, Triple>> = {
  'types-x86_64.btf': 'x86_64-linux-gnu',
  'types-i386.btf': 'i386-linux-gnu',
  'types-s390x.btf': 's390x-linux-gnu',
  'types-powerpc64le.btf': 'powerpc64le-linux-gnu',
  'types-arm.btf': 'arm-linux-gnueabihf',
  'types-bpfel.o': 'bpfel',
  'types-bpfeb.o': 'bpfeb',
}

t.test('the printed header compiles, with the sizes and offsets of the BTF', (t) => {
  for (const [name, triple] of Object.entries(machines)) {
    const { text, count } = withAsserts(readBtf(fixture(name)))
    t.ok(count > 100, `${name}: ${count} asserts`)
    t.doesNotThrow(
      () =>
        compile(
          text,
          triple,
          '-fsyntax-only',
          '-Werror',
          '-Wno-unknown-attributes',
          '-Wno-ignored-attributes',
          '-Wno-visibility',
        ),
      name,
    )
  }
  t.end()
})

t.test('a wrong assert in the printed header does not compile', (t) => {
  const { text } = withAsserts(parseBtf(fixture('types-x86_64.btf')))
  const wrong = text.replace('sizeof(struct everything) == 448', 'sizeof(struct everything) == 440')
  t.not(wrong, text)
  t.throws(() => compile(wrong, 'x86_64-linux-gnu', '-fsyntax-only'))
  t.end()
})

t.test('BTF made from the printed header has the same layouts, including bitfields', (t) => {
  for (const [name, triple] of Object.entries(machines)) {
    const btf = readBtf(fixture(name))
    const again = roundTrip(btf, triple)
    const { same, different, missing } = compareLayouts(btf, again)
    // a union that is larger than its members is padded with an anonymous struct
    t.same(
      [...different, ...missing].map((layout) => layout.name).filter((n) => n !== 'value'),
      [],
      `${name}: ${same}`,
    )
    t.ok(same >= 7)
  }
  t.end()
})

t.test('the printed header has declarations in idiomatic C', (t) => {
  const text = [...printHeader(parseBtf(fixture('types-x86_64.btf')))].join('')
  for (const line of [
    'struct list *next;',
    'typedef int (*callback_t)(struct list *, const char * restrict, ...);',
    'void (*table[2])(void);',
    'int *(*returns_pointer)(bool);',
    'u8 (*pointer_to_array)[8];',
    'const volatile u32 qualified;',
    'u32 __attribute__((btf_type_tag("user"))) *tagged;',
    'int third: 20;',
    'u8 rest[0];',
    'enum small {\n\tTINY = 0,\n} __attribute__((mode(byte)));',
    'LARGE = 78187493520ULL,',
    'NEGATIVE = -2,',
  ]) {
    t.ok(text.includes(line), line)
  }
  t.end()
})

/** Each member's name with the comment after it. */
function places(listing: string): string[] {
  return [
    ...listing.matchAll(
      /(\w+)[)\]\d[]*(?:\(.*\))?(?:\[\d*\])?(?: *: *\d+)?(?: __attribute__\S+)?; +(\/\* .*? \*\/)$/gm,
    ),
  ].map(([, name, place]) => `${name} ${place!.replace(/\s+/g, ' ').replace(/: /, ':')}`)
}

t.test('printLayout gives the offsets and sizes that pahole prints', (t) => {
  const btf = parseBtf(fixture('types-x86_64.btf'))
  for (const name of ['list', 'bits', 'packed', 'packed_bits', 'aligned', 'halves', 'everything']) {
    const theirs = execFileSync(
      'pahole',
      ['-F', 'btf', '-C', name, `${fixtureFolder}types-x86_64.btf`],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    )
    const ours = printLayout(btf, btf.find(name, 'STRUCT')!)
    t.same(places(ours), places(theirs), name)
    t.equal(/size: (\d+)/.exec(ours)?.[1], /size: (\d+)/.exec(theirs)?.[1])
    t.equal(/, holes: (\d+)/.exec(ours)?.[1], /, holes: (\d+)/.exec(theirs)?.[1])
  }
  t.equal(
    printLayout(btf, btf.find('callback_t', 'TYPEDEF')!),
    'typedef int (*callback_t)(struct list *, const char * restrict, ...);\n',
  )
  t.match(printLayout(btf, btf.find('color', 'ENUM')!), /^enum color \{\n\tRED = 0,/)
  t.match(printLayout(btf, btf.find('entry', 'FUNC')!), 'long entry(struct everything *);')
  t.end()
})

t.test('printing a type that contains itself is an error and ends', (t) => {
  const bytes = Buffer.from(fixture('types-x86_64.btf'))
  const btf = parseBtf(bytes)
  const at = btf.recordAt(btf.find('everything', 'STRUCT')!)
  bytes.writeUInt32LE(btf.find('everything', 'STRUCT')!, at + 12 + 4)
  const looped = parseBtf(bytes)
  t.throws(() => [...printHeader(looped)], BtfError)
  t.end()
})

const headerOf = (types: readonly BtfType[]) =>
  [...printHeader(parseBtf(encodeBtf(types), { pointerSize: 8 }))].join('')

t.test('an attribute keeps its arguments, unless its name could be any other C', (t) => {
  const tagged = (name: string) =>
    headerOf([
      { kind: 'TYPE_TAG', id: 1, name, type: 0, flag: true },
      { kind: 'PTR', id: 2, name: '', type: 1, flag: false },
      { kind: 'TYPEDEF', id: 3, name: 'arena_t', type: 2, flag: false },
    ])
  const text = tagged('address_space(1)')
  t.match(text, 'typedef void __attribute__((address_space(1))) *arena_t;')
  t.doesNotThrow(() => compile(text, 'bpfel', '-fsyntax-only'))
  t.match(tagged('used'), '__attribute__((used))')
  t.match(tagged('x(1))) int evil; //'), '__attribute__((x_1____int_evil____))')
  t.end()
})

t.test('va_list has the size that it has in the kernel, also when compiled for BPF', (t) => {
  const int: BtfType = {
    ...{ kind: 'INT', id: 1, name: 'long', size: 8, signed: true },
    ...{ char: false, bool: false, bits: 64, bitOffset: 0 },
  }
  const member = (name: string, type: number, at: number) => {
    return { name, type, bitOffset: at * 64, bitfieldSize: 0 }
  }
  const tag = ['a', 'b', 'c'].map((name, i) => member(name, 1, i))
  const members = [member('args', 5, 0), member('after', 1, 3)]
  const text = headerOf([
    int,
    { kind: 'STRUCT', id: 2, name: '__va_list_tag', size: 24, flag: false, members: tag },
    { kind: 'ARRAY', id: 3, name: '', type: 2, indexType: 1, length: 1 },
    { kind: 'TYPEDEF', id: 4, name: '__builtin_va_list', type: 3, flag: false },
    { kind: 'TYPEDEF', id: 5, name: 'va_list', type: 4, flag: false },
    { kind: 'STRUCT', id: 6, name: 'holder', size: 32, flag: false, members },
    { kind: 'TYPEDEF', id: 7, name: '__gnuc_va_list', type: 0, flag: false },
  ])
  const asserts = `_Static_assert(sizeof(va_list) == 24, "size");
_Static_assert(__builtin_offsetof(struct holder, after) == 24, "offset");\n`
  for (const triple of ['bpfel', 'x86_64-linux-gnu'] as const) {
    t.doesNotThrow(() => compile(text + asserts, triple, '-fsyntax-only'), triple)
  }
  t.end()
})

t.test('a struct without members is printed as one array of its size', (t) => {
  const text = headerOf([
    { kind: 'STRUCT', id: 1, name: 'task_struct', size: 9792, flag: false, members: [] },
    { kind: 'UNION', id: 2, name: 'empty', size: 100, flag: false, members: [] },
    { kind: 'STRUCT', id: 3, name: '', size: 50, flag: false, members: [] },
    { kind: 'TYPEDEF', id: 4, name: 'unnamed', type: 3, flag: false },
  ])
  t.match(text, 'struct task_struct {\n\tunsigned char __opaque[9792];\n};')
  t.ok(text.length < 1000)
  const asserts = `_Static_assert(sizeof(struct task_struct) == 9792, "size");
_Static_assert(sizeof(union empty) == 100, "size");
_Static_assert(sizeof(unnamed) == 50, "size");\n`
  t.doesNotThrow(() => compile(text + asserts, 'bpfel', '-fsyntax-only'))
  t.end()
})

t.test('the header has a prototype of each kfunc, as bpftool 7.8 prints it', (t) => {
  const pointer = (id: number, type: number): BtfType => {
    return { kind: 'PTR', id, name: '', type, flag: false }
  }
  const tag = (id: number, name: string, type: number, component = -1): BtfType => {
    return { kind: 'DECL_TAG', id, name, type, component, flag: false }
  }
  const func = (id: number, name: string, type: number): BtfType => {
    return { kind: 'FUNC', id, name, type, linkage: 'static' }
  }
  const int = { signed: true, char: false, bool: false, bits: 32, bitOffset: 0 }
  const text = headerOf([
    { kind: 'INT', id: 1, name: 'int', size: 4, ...int },
    { kind: 'STRUCT', id: 2, name: 'task_struct', size: 64, flag: false, members: [] },
    pointer(3, 2),
    { kind: 'TYPE_TAG', id: 4, name: 'user', type: 1, flag: false },
    pointer(5, 4),
    { kind: 'CONST', id: 6, name: '', type: 5, flag: false },
    { kind: 'FUNC_PROTO', id: 7, name: '', type: 1, parameters: [{ name: '', type: 3 }] },
    pointer(8, 7),
    {
      ...{ kind: 'FUNC_PROTO', id: 9, name: '', type: 3 },
      parameters: [
        { name: 'task', type: 3 },
        { name: 'flags', type: 6 },
        { name: 'callback', type: 8 },
        { name: '', type: 0 },
      ],
    },
    { kind: 'FUNC_PROTO', id: 10, name: '', type: 0, parameters: [] },
    func(11, 'bpf_second', 9),
    func(12, 'bpf_first', 10),
    func(13, 'other', 10),
    tag(14, 'bpf_kfunc', 11),
    tag(15, 'bpf_kfunc', 12),
    tag(16, 'bpf_fastcall', 12),
    tag(17, 'bpf_fastcall', 13),
    tag(18, 'bpf_kfunc', 13, 0),
    tag(19, 'bpf_kfunc', 2),
  ])
  t.equal(
    text.slice(text.indexOf('/* BPF kfuncs */'), text.lastIndexOf('#ifndef BPF_NO_PRESERVE')),
    `/* BPF kfuncs */
#ifndef BPF_NO_KFUNC_PROTOTYPES
extern __bpf_fastcall void bpf_first(void) __weak __ksym;
extern struct task_struct *bpf_second(struct task_struct *task, int __attribute__((btf_type_tag("user"))) * const flags, int (*callback)(struct task_struct *), ...) __weak __ksym;
#endif

`,
  )
  const use = 'int run(struct task_struct *task) { bpf_first(); return !bpf_second(task, 0, 0); }\n'
  t.doesNotThrow(() => compile(text + use, 'bpfel', '-fsyntax-only', '-Werror'))
  const macros = `#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))\n`
  t.doesNotThrow(
    () => compile(macros + text + use, 'bpfel', '-fsyntax-only', '-Werror'),
    'also after bpf_helpers.h',
  )
  t.throws(
    () =>
      compile(
        `#define BPF_NO_KFUNC_PROTOTYPES\n${text}${use}`,
        'bpfel',
        '-fsyntax-only',
        '-Werror',
      ),
    /bpf_first/,
  )
  t.end()
})

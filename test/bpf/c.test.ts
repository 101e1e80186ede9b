import { execFileSync } from 'node:child_process'
import t from 'tap'
import {
  BtfError,
  compareLayouts,
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

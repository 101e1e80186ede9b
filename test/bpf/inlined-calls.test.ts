// Inlined calls in the DWARF of real compilers, and in DWARF that lies.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { describeVmlinux, memorySource, openElf, readInlinedCalls } from '../../bpf/index.ts'
import { linked } from '../helpers/linked.ts'
import { makeVmlinux, stripped } from '../helpers/vmlinux.ts'

const SOURCE = `
extern int g(int);
static __attribute__((noinline)) int never(int x) { return g(x) + 1; }
static inline __attribute__((always_inline)) int always(int x) { return g(x) * 3; }
struct holder { int (*member)(int); struct { int deep; } inner; enum { ONE } kind; };
__attribute__((noinline)) int apart(int x) { return g(x) - 1; }
static inline int sometimes(int x) { return g(x) + g(x + 1); }
int (*pointer)(int) = sometimes;
int caller(struct holder *h, int x) { return never(x) + always(x) + sometimes(x) + apart(x) + h->inner.deep; }
`

const COMPILERS: Record<string, string[]> = {
  gcc: ['gcc', '-fno-pie'],
  'gcc with DWARF 4': ['gcc', '-fno-pie', '-gdwarf-4'],
  clang: ['clang', '--target=x86_64-linux-gnu'],
  'clang with DWARF 5': ['clang', '--target=x86_64-linux-gnu', '-gdwarf-5'],
  'clang for big-endian 64 bits': ['clang', '--target=powerpc64-linux-gnu', '-gdwarf-5'],
  'clang for big-endian 32 bits': ['clang', '--target=mips-linux-gnu', '-gdwarf-4'],
}

for (const [name, command] of Object.entries(COMPILERS)) {
  t.test(`functions with inlined calls are found in the DWARF of ${name}`, (t) => {
    const other = 'int unrelated(int x) { return x; }'
    const bytes = linked([other, SOURCE], 'c', [...command, '-g', '-O2'])
    const names = readInlinedCalls(memorySource(bytes))
    t.same([...names].sort(), ['always', 'sometimes'])
    t.end()
  })
}

t.test('an image without DWARF is refused with a code', (t) => {
  const bytes = linked([SOURCE], 'c', ['clang', '--target=x86_64-linux-gnu', '-O2'])
  t.throws(() => readInlinedCalls(memorySource(bytes)), { code: 'missing_section' })
  t.end()
})

t.test('without DWARF, inlined calls are read from .BTF.inline in both byte orders', (t) => {
  const path = join(t.testdir(), 'vmlinux')
  for (const machine of ['x86_64', 'mips'] as const) {
    const names = ['helper', 'gone']
    makeVmlinux(path, { machine, btf: true, inline: names })
    const inlined = readInlinedCalls(memorySource(readFileSync(path)))
    t.same([...inlined], ['helper'], `${machine}: DWARF comes first, where there is some`)
    const bytes = stripped(path, ['.BTF.inline'])
    t.same([...readInlinedCalls(memorySource(bytes))], names, machine)
    t.match(describeVmlinux(memorySource(bytes)), { hasDwarf: false, hasInlineBtf: true })
    const alone = stripped(path, ['.BTF.inline'], ['.BTF'])
    t.throws(() => readInlinedCalls(memorySource(alone)), { code: 'missing_section' })
    const { offset, size } = openElf(memorySource(bytes)).section('.BTF.inline')!
    for (let at = offset; at < offset + size; at++) {
      const broken = Buffer.from(bytes)
      broken[at]! ^= 0xff
      try {
        readInlinedCalls(memorySource(broken))
      } catch (error) {
        if ((error as Error).name !== 'BtfError') t.fail(`${machine} ${at}: ${error}`)
      }
    }
  }
  t.end()
})

t.test('DWARF with any byte changed gives names or an error with a code, and ends', (t) => {
  const whole = linked([SOURCE], 'c', [...COMPILERS.gcc!, '-g', '-O2'])
  const elf = openElf(memorySource(whole))
  for (const section of ['.debug_info', '.debug_abbrev', '.debug_str']) {
    const { offset, size } = elf.section(section)!
    for (let at = offset; at < offset + size; at++) {
      for (const value of [0, 0xff, whole[at]! ^ 1]) {
        const bytes = Buffer.from(whole)
        bytes[at] = value
        try {
          readInlinedCalls(memorySource(bytes))
        } catch (error) {
          if ((error as Error).name !== 'BtfError') t.fail(`${section} ${at}: ${error}`)
        }
      }
    }
  }
  t.end()
})

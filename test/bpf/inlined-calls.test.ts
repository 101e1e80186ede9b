// Inlined calls in the DWARF of real compilers, and in DWARF that lies.
import t from 'tap'
import { memorySource, openElf, readInlinedCalls } from '../../bpf/index.ts'
import { linked } from '../helpers/linked.ts'

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

// The functions of real ELF files: which symbols count, how they are marked, and how the list is written and read.
import t from 'tap'
import { FunctionList, memorySource, readFunctions } from '../../bpf/index.ts'
import { linked } from '../helpers/linked.ts'

const TARGETS = ['x86_64', 'i386', 'aarch64', 'mips', 'powerpc64']

/** Assembler text of a function; the names of objects and labels are not those of functions. */
const functionOf = (name: string, isGlobal = false) =>
  `${isGlobal ? `.globl "${name}"\n` : ''}.type "${name}", %function\n"${name}":\n .long 0\n`

const FIRST = `
.text
${functionOf('vfs_read', true)}
${functionOf('static_one')}
${functionOf('clone.isra.0')}
${functionOf('clone.constprop.0.cold')}
${functionOf('clone.constprop.0')}
${functionOf('half.part.0')}
${functionOf('half')}
${functionOf('promoted.llvm.1234567')}
${functionOf('twice')}
${functionOf('__pfx_vfs_read')}
.globl label
label: .long 0
.globl __noinstr_text_start, __noinstr_text_end
__noinstr_text_start:
${functionOf('in_noinstr')}
__noinstr_text_end:
.section .init.text, "ax"
${functionOf('at_boot')}
.data
.globl object
.type object, %object
object: .long 0
`
const SECOND = `.text\n${functionOf('twice')}\n.globl missing\n.long missing\n`

for (const target of TARGETS) {
  t.test(`the functions of ${target} are listed by name, with what is special about them`, (t) => {
    const bytes = linked([FIRST, SECOND], 's', ['clang', `--target=${target}-linux-gnu`])
    const list = readFunctions(memorySource(bytes))!
    t.same(Buffer.from(list.encode()).toString().split('\n'), [
      'clone.constprop.0',
      'clone.constprop.0.cold',
      'clone.isra.0',
      'half',
      'half.part.0',
      'in_noinstr refused',
      'promoted.llvm.1234567',
      'static_one',
      'twice several',
      'vfs_read',
      '',
    ])
    t.end()
  })
}

t.test('an image without a symbol table has no list', (t) => {
  const bytes = linked([FIRST], 's', ['clang', '--target=x86_64-linux-gnu'])
  const elf = Buffer.from(bytes)
  const names = elf.readBigUInt64LE(40)
  for (let n = 0; n < elf.readUInt16LE(60); n++) {
    const type = Number(names) + n * 64 + 4
    if (elf.readUInt32LE(type) === 2) elf.writeUInt32LE(1, type)
  }
  t.equal(readFunctions(memorySource(elf)), undefined)
  t.end()
})

t.test(
  'a list that was stored is read back, and tells functions from what was made of them',
  (t) => {
    const marks = (...names: ('several' | 'refused' | 'inlined')[]) => new Set(names)
    const made = FunctionList.of(
      new Map([
        ['foo', marks()],
        ['foo2', marks('several')],
        ['foo.isra.0', marks()],
        ['foo.isra.0.cold', marks()],
        ['foo.cold', marks()],
        ['gone.constprop.1', marks()],
        ['lto.llvm.99', marks('refused')],
        ['not a name', marks()],
        ['line\nbreak', marks()],
      ]),
    )
    const list = FunctionList.decode(made.withInlined(new Set(['foo', 'elsewhere'])).encode())
    t.equal(list.size, 7)
    t.same([list.count('inlined'), list.count('several')], [1, 1])
    t.same([...list.find('foo')!], ['inlined'])
    t.same([...list.find('foo2')!], ['several'])
    t.equal(list.find('gone'), undefined)
    t.same([...list.find('lto')!], ['refused'], 'the kernel finds it without its suffix')
    t.same(list.clonesOf('foo'), ['foo.isra.0'])
    t.same(list.clonesOf('gone'), ['gone.constprop.1'])
    t.same(list.clonesOf('lto'), [])
    for (const [pattern, expected] of [
      ['foo', true],
      ['fo?', true],
      ['*o2', true],
      ['fo', false],
      ['foo.isra.?', true],
      ['fooXisra*', false],
      [`${'*'.repeat(200)}x`, false],
    ] as const)
      t.equal(list.matches(pattern), expected, pattern)
    t.same([...FunctionList.decode(Buffer.from('a future inlined\n')).find('a')!], ['inlined'])
    t.end()
  },
)

t.test('a symbol table that lies is refused with a code', (t) => {
  const bytes = linked([FIRST], 's', ['clang', '--target=x86_64-linux-gnu'])
  const elf = Buffer.from(bytes)
  const table = Number(elf.readBigUInt64LE(40))
  for (let n = 0; n < elf.readUInt16LE(60); n++) {
    const at = table + n * 64
    if (elf.readUInt32LE(at + 4) !== 2) continue
    const symbols = Number(elf.readBigUInt64LE(at + 24))
    for (let i = 1; i * 24 < Number(elf.readBigUInt64LE(at + 32)); i++)
      elf.writeUInt32LE(0xffff_0000, symbols + i * 24)
  }
  t.throws(() => readFunctions(memorySource(elf)), { name: 'BtfError', code: 'invalid_elf' })
  t.end()
})

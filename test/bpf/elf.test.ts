import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { memorySource, openElf } from '../../bpf/index.ts'
import { fixture, fixtureFolder, fixtureNames } from '../helpers/fixtures.ts'

t.test('the ELF reader lists the sections and symbols that readelf lists', (t) => {
  for (const name of fixtureNames(/^vmlinux-|\.o$/)) {
    const elf = openElf(memorySource(fixture(name)))
    const theirs = execFileSync('llvm-readelf', ['-SW', fixtureFolder + name], { encoding: 'utf8' })
    const rows = [
      ...theirs.matchAll(/^ {2}\[ *(\d+)\] (\S*) +[A-Z_]+ +([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) /gm),
    ]
    t.same(
      elf.sections.slice(1).map((s) => [s.index, s.name, Number(s.address), s.offset, s.size]),
      rows
        .slice(1)
        .map(([, index, name, address, offset, size]) => [
          Number(index),
          name,
          ...[address, offset, size].map((hex) => Number.parseInt(hex!, 16)),
        ]),
      name,
    )
    const symbols = execFileSync('llvm-nm', ['-a', '-p', fixtureFolder + name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const named = [...elf.symbols()].map((s) => s.name).filter(Boolean)
    t.same(
      named.filter((n) => !n.startsWith('.')),
      [...symbols.matchAll(/ \w (\S+)$/gm)].map((m) => m[1]!).filter((n) => !n.startsWith('.')),
      `${name}: ${named.length} symbols`,
    )
  }
  t.end()
})

t.test('symbol finds a symbol by exact name, with its bytes if its section has any', (t) => {
  for (const name of ['vmlinux-x86_64', 'vmlinux-mips']) {
    const elf = openElf(memorySource(fixture(name)))
    const symbol = elf.symbol('linux_proc_banner')!
    const section = elf.sections[symbol.section]!
    const bytes = elf.read(section, Number(symbol.value - section.address), symbol.size)
    t.equal(Buffer.from(bytes).toString(), '%s version %s (builder@host) (compiler) %s\n\0')
    t.equal(elf.symbol('proc_banner'), undefined, 'the tail of a name does not match')
  }
  t.end()
})

t.test('a search finds a needle across two chunks of a section', (t) => {
  const size = (1 << 20) + 10
  const file = t.testdir({ 'data.bin': Buffer.alloc(size).fill('needle', size - 13, size - 7) })
  const object = join(file, 'out.o')
  execFileSync('llvm-objcopy', [
    '--add-section',
    `.big=${join(file, 'data.bin')}`,
    join(fixtureFolder, 'types-bpfel.o'),
    object,
  ])
  const elf = openElf(memorySource(readFileSync(object)))
  t.same([...elf.search(elf.section('.big')!, Buffer.from('needle'))], [size - 13])
  t.end()
})

t.test('reading a compressed, missing or truncated section fails with a code of its own', (t) => {
  const folder = t.testdir()
  const packed = join(folder, 'packed')
  execFileSync('llvm-objcopy', [
    '--compress-debug-sections=zlib',
    `${fixtureFolder}vmlinux-x86_64`,
    packed,
  ])
  const elf = openElf(memorySource(readFileSync(packed)))
  const section = elf.sections.find((s) => s.compressed)!
  t.match(section.name, /^\.debug_/)
  t.throws(() => elf.read(section), { code: 'unsupported' })
  t.throws(() => elf.read('.none'), { code: 'missing_section' })
  t.throws(() => elf.read('.text', 0, 1 << 20), { code: 'truncated' })
  t.end()
})

t.test('a section offset above 2^52 is rejected', (t) => {
  const bytes = Buffer.from(fixture('vmlinux-x86_64'))
  const { index, size } = openElf(memorySource(bytes)).section('.rodata')!
  const header = Number(bytes.readBigUInt64LE(40)) + index * 64
  const movedTo = (offset: bigint) => {
    bytes.writeBigUInt64LE(offset, header + 24)
    return openElf(memorySource(bytes))
  }
  t.throws(() => movedTo(2n ** 53n - 2n), { code: 'invalid_elf', offset: header })
  const furthest = 2 ** 52 - 1
  const elf = movedTo(BigInt(furthest))
  t.throws(() => elf.read('.rodata', size - 1), { code: 'truncated', offset: furthest + size - 1 })
  t.end()
})

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  BtfError,
  isWrapped,
  memorySource,
  openElf,
  parseBtf,
  readBtf,
  wrapInElf,
} from '../../bpf/index.ts'
import { littleKernels } from '../helpers/core.ts'

for (const [machine, path] of littleKernels()) {
  t.test(`BTF of ${machine} in an ELF file is read as before`, async (t) => {
    const raw = readFileSync(path)
    const { byteOrder, pointerSize } = parseBtf(raw)
    const wrapped = wrapInElf(raw, { byteOrder, pointerSize })
    t.ok(isWrapped(wrapped))
    const elf = openElf(memorySource(wrapped))
    t.match(elf, { byteOrder, bits: 8 * pointerSize, type: 1 })
    const btf = elf.section('.BTF')!
    t.equal(btf.offset % 8, 0)
    t.ok(Buffer.from(elf.read(btf)).equals(raw))
    t.equal(readBtf(wrapped).typeCount, parseBtf(raw).typeCount)

    const file = join(t.testdir({}), 'wrapped')
    writeFileSync(file, wrapped)
    const options = { encoding: 'utf8' } as const
    const dump = (from: string) => execFileSync('bpftool', ['btf', 'dump', 'file', from], options)
    t.equal(dump(file), dump(path), 'libbpf reads the same types')
    const sections = execFileSync('readelf', ['--wide', '--sections', '--symbols', file], options)
    t.match(sections, /\.BTF +PROGBITS .* 8\n/)
    t.match(sections, /Symbol table '\.symtab' contains 1 entry/)
    t.equal(
      execFileSync('readelf', ['--lint', '--all', file], { ...options, stdio: 'pipe' }).match(
        /warning|error/i,
      ),
      null,
    )
  })
}

t.test('files of others, damaged files and raw BTF are not taken for ours', async (t) => {
  const raw = readFileSync(littleKernels().get('x86_64')!)
  const wrapped = wrapInElf(raw, { byteOrder: 'little', pointerSize: 8 })
  const damaged = Uint8Array.from(wrapped)
  damaged.fill(0xff, damaged.length - 200)
  const others = [raw, new Uint8Array(), wrapped.subarray(0, 100), damaged, readFileSync('/bin/sh')]
  for (const other of others) t.notOk(isWrapped(other))
  t.throws(() => readBtf(wrapped.subarray(0, 100)), BtfError)
})

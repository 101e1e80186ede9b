import t from 'tap'
import { buildIdOf, describeVmlinux, memorySource } from '../../bpf/index.ts'
import { fixture } from '../helpers/fixtures.ts'

const BUILD_ID = '0123456789abcdef0123456789abcdef01234567'
const told = {
  buildId: BUILD_ID,
  release: '6.1.0-9-test',
  unameVersion: '#1 SMP Debian 6.1.9-1 (2023-02-01)',
}

t.test('describeVmlinux reads a 64-bit little-endian image with symbols, DWARF and BTF', (t) => {
  const { ownBtf, ...rest } = describeVmlinux(memorySource(fixture('vmlinux-x86_64')))
  t.same(rest, {
    byteOrder: 'little',
    pointerSize: 8,
    machine: 62,
    arch: 'x86_64',
    ...told,
    hasDwarf: true,
  })
  t.ok(fixture('types-x86_64.btf').equals(ownBtf!))
  t.end()
})

t.test('describeVmlinux finds the banner of a stripped 32-bit image among similar strings', (t) => {
  t.same(describeVmlinux(memorySource(fixture('vmlinux-i386'))), {
    byteOrder: 'little',
    pointerSize: 4,
    machine: 3,
    arch: 'i686',
    ...told,
    hasDwarf: false,
  })
  t.end()
})

t.test('describeVmlinux reads a big-endian image', (t) => {
  t.same(describeVmlinux(memorySource(fixture('vmlinux-mips'))), {
    byteOrder: 'big',
    pointerSize: 4,
    machine: 8,
    arch: 'mips',
    ...told,
    hasDwarf: true,
  })
  t.end()
})

t.test('describeVmlinux reads only parts of the file', (t) => {
  const bytes = fixture('vmlinux-i386')
  const padded = new Uint8Array(64 << 20)
  padded.set(bytes)
  let read = 0
  const source = {
    size: padded.length,
    read(offset: number, length: number) {
      read += length
      return padded.subarray(offset, offset + length)
    },
  }
  t.equal(describeVmlinux(source).buildId, BUILD_ID)
  t.ok(read < 4096, `${read} bytes were read`)
  t.end()
})

t.test('buildIdOf reads raw notes in the format of /sys/kernel/notes', (t) => {
  const note = (bigEndian: boolean, name: string, type: number, text: Buffer) => {
    const bytes = Buffer.alloc(
      12 + Math.ceil((name.length + 1) / 4) * 4 + Math.ceil(text.length / 4) * 4,
    )
    const words = [name.length + 1, text.length, type]
    words.forEach((word, i) => {
      bigEndian ? bytes.writeUInt32BE(word, i * 4) : bytes.writeUInt32LE(word, i * 4)
    })
    bytes.write(name, 12)
    text.copy(bytes, 12 + Math.ceil((name.length + 1) / 4) * 4)
    return bytes
  }
  const id = Buffer.from(BUILD_ID, 'hex')
  for (const order of ['little', 'big'] as const) {
    const big = order === 'big'
    const notes = Buffer.concat([
      note(big, 'Xen', 3, Buffer.from('not this')),
      note(big, 'Linux', 0x101, Buffer.from('odd')),
      note(big, 'GNU', 3, id),
    ])
    t.equal(buildIdOf(notes, order), BUILD_ID, order)
    t.equal(buildIdOf(notes.subarray(0, 48), order), undefined, 'notes without a build-id')
    t.throws(() => buildIdOf(notes.subarray(0, -4), order), { code: 'truncated' })
  }
  t.equal(buildIdOf(new Uint8Array(0), 'little'), undefined)
  t.end()
})

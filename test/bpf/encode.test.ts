import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Btf, encodeBtf, parseBtf, readBtf } from '../../bpf/index.ts'
import { craft, info } from '../helpers/craft.ts'
import { bpftoolDump, dump, fixture, fixtureNames } from '../helpers/fixtures.ts'

/** Encodes the types in the other byte order. */
function swapped(btf: Btf): Uint8Array {
  const byteOrder = btf.byteOrder === 'little' ? 'big' : 'little'
  return encodeBtf(btf.types(), { byteOrder })
}

t.test('encodeBtf writes the bytes that pahole wrote', (t) => {
  for (const name of fixtureNames(/^types-.*btf$/)) {
    const btf = parseBtf(fixture(name))
    const { byteOrder, strings } = btf
    t.ok(fixture(name).equals(encodeBtf(btf.types(), { byteOrder, strings })), name)
  }
  const base = parseBtf(fixture('types-x86_64.btf'))
  const split = parseBtf(fixture('module-x86_64.btf'), { base })
  const written = encodeBtf(split.types(), { base, strings: split.strings })
  t.ok(fixture('module-x86_64.btf').equals(written), 'split BTF is written with equal bytes')
  const anew = parseBtf(encodeBtf(split.types(), { base }), { base })
  t.equal(dump(anew), dump(split), 'the types are equal with a new string section too')
  t.ok(anew.strings.length <= split.strings.length)
  t.end()
})

t.test('types survive encoding in either byte order, and bpftool agrees', (t) => {
  const folder = t.testdir()
  for (const name of fixtureNames(/^types-/)) {
    const btf = readBtf(fixture(name))
    const other = parseBtf(swapped(btf))
    t.not(other.byteOrder, btf.byteOrder)
    t.equal(dump(other), dump(btf), name)
    const file = join(folder, name)
    writeFileSync(file, other.bytes)
    t.equal(bpftoolDump(file), dump(btf))
    t.ok(
      Buffer.from(swapped(parseBtf(swapped(other)))).equals(other.bytes),
      'two conversions give the original bytes',
    )
  }
  t.end()
})

t.test('encodeBtf writes each string once and drops unused strings', (t) => {
  const btf = parseBtf(craft([1, info(7), 0, 3, info(7), 0, 5, info(7), 0], '\0a\0a\0b\0unused\0'))
  const written = parseBtf(encodeBtf(btf.types()))
  t.equal(Buffer.from(written.strings).toString(), '\0a\0b\0')
  t.equal(dump(written), dump(btf))
  t.end()
})

t.test('encodeBtf rejects a value that does not fit its field', (t) => {
  const struct = (bitOffset: number, bitfieldSize: number, flag: boolean) => () =>
    encodeBtf([
      {
        kind: 'STRUCT',
        id: 1,
        name: 's',
        size: 8,
        flag,
        members: [{ name: 'm', type: 0, bitOffset, bitfieldSize }],
      },
    ])
  t.doesNotThrow(struct(1 << 24, 0, false))
  t.throws(struct(1 << 24, 0, true), { code: 'invalid_type' })
  t.throws(struct(0, 3, false), { code: 'invalid_type' })
  t.throws(() => encodeBtf([{ kind: 'FLOAT', id: 2, name: 'f', size: 4 }]), {
    code: 'invalid_type',
  })
  t.throws(() => encodeBtf([{ kind: 'UNKNOWN', id: 1, name: '', number: 40 }]), {
    code: 'unsupported',
  })
  t.end()
})

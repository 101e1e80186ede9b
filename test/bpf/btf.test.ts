import t from 'tap'
import { type Btf, BtfError, parseBtf, readBtf } from '../../bpf/index.ts'
import { craft, info } from '../helpers/craft.ts'
import { bpftoolDump, dump, fixture, fixtureFolder, fixtureNames } from '../helpers/fixtures.ts'

const x86 = parseBtf(fixture('types-x86_64.btf'))

/** The code of the BtfError that a call throws. */
function codeOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    if (error instanceof BtfError) return error.code
    throw error
  }
  return 'none'
}

t.test('parseBtf reads every type of every fixture as bpftool does', (t) => {
  for (const name of fixtureNames(/^types-/)) {
    const btf = readBtf(fixture(name))
    t.equal(dump(btf), bpftoolDump(fixtureFolder + name), `${name}: ${btf.typeCount} types`)
  }
  t.end()
})

t.test('split BTF continues the type ids and string offsets of its base', (t) => {
  const btf = parseBtf(fixture('module-x86_64.btf'), { base: x86 })
  const theirs = bpftoolDump(
    `${fixtureFolder}module-x86_64.btf`,
    `${fixtureFolder}types-x86_64.btf`,
  )
  t.equal(dump(btf), theirs)
  t.equal(btf.startId, x86.typeCount + 1)
  t.equal(btf.find('list', 'STRUCT'), x86.find('list', 'STRUCT'), 'find gives a type of the base')
  t.equal(btf.name(btf.find('module_only')!), 'module_only')
  t.equal(btf.pointerSize, 8)
  t.equal(btf.type(btf.startId).id, btf.startId)
  t.equal(
    codeOf(() => parseBtf(fixture('module-x86_64.btf'))),
    'invalid_strings',
    'refused without its base',
  )
  const other = parseBtf(fixture('types-s390x.btf'))
  t.equal(
    codeOf(() => parseBtf(fixture('module-x86_64.btf'), { base: other })),
    'invalid_header',
    'refused over a base of the other byte order',
  )
  t.end()
})

t.test('Btf gives the values of a catalog record: types, kinds, byte order, pointer size', (t) => {
  const seen = (name: string) => {
    const btf = readBtf(fixture(name))
    return `${btf.byteOrder} ${btf.pointerSize}`
  }
  t.equal(seen('types-x86_64.btf'), 'little 8')
  t.equal(seen('types-i386.btf'), 'little 4')
  t.equal(seen('types-s390x.btf'), 'big 8')
  t.equal(seen('types-powerpc64le.btf'), 'little 8')
  t.equal(seen('types-arm.btf'), 'little 4')
  t.equal(seen('types-bpfeb.o'), 'big 8')
  t.same(x86.kinds(), [
    ...['INT', 'PTR', 'ARRAY', 'STRUCT', 'UNION', 'ENUM', 'FWD', 'TYPEDEF', 'VOLATILE'],
    ...['CONST', 'RESTRICT', 'FUNC', 'FUNC_PROTO', 'VAR', 'DATASEC', 'FLOAT', 'TYPE_TAG'],
    'ENUM64',
  ])
  t.equal([...x86.types()].length, x86.typeCount)
  t.equal(x86.countOf('FLOAT'), 2)
  t.end()
})

t.test('find gives types by exact name and kind', (t) => {
  const id = x86.find('everything', 'STRUCT')!
  t.equal(x86.name(id), 'everything')
  t.equal(x86.find('everything', 'UNION'), undefined, 'no type has this name and kind')
  t.equal(x86.find('nothing_of_that_name'), undefined)
  t.equal(x86.find('verything'), undefined, 'the tail of a name is not a name')
  t.equal(x86.find(''), undefined)
  const everything = x86.type(id)
  t.ok(everything.kind === 'STRUCT' && everything.members.some((m) => m.name === 'word'))

  const shared = parseBtf(craft([2, info(7), 0, 1, info(7), 0, 5, info(7), 0], '\0xab\0ab\0'))
  t.equal(shared.find('ab'), 1, 'a name that is stored as the tail of another is found')
  t.equal(shared.find('xab'), 2)
  t.equal(shared.name(3), 'ab', 'a name that is stored twice is found')
  t.end()
})

t.test('members have bit offsets and bitfield sizes, with kind_flag and without', (t) => {
  const int = [1, info(1), 4, 32]
  const flagged = parseBtf(craft([...int, 0, info(4, 1, 1), 4, 1, 1, (3 << 24) | 5], '\0a\0'))
  const plain = parseBtf(craft([...int, 0, info(4, 1), 1 << 22, 1, 1, 1 << 24], '\0a\0'))
  const members = (btf: Btf) => {
    const type = btf.type(2)
    return type.kind === 'STRUCT' ? type.members : []
  }
  t.same(members(flagged), [{ name: 'a', type: 1, bitOffset: 5, bitfieldSize: 3 }])
  t.same(members(plain), [{ name: 'a', type: 1, bitOffset: 1 << 24, bitfieldSize: 0 }])
  t.end()
})

t.test('vlen is read with 24 bits', (t) => {
  const values = Array.from({ length: 70_000 }, (_, i) => [0, i]).flat()
  const type = parseBtf(craft([0, info(6, 70_000), 4, ...values])).type(1)
  t.equal(type.kind === 'ENUM' && type.values.at(-1)?.value, 69_999)
  t.end()
})

t.test('a layout section lets the parser skip unknown kinds', (t) => {
  const types = [0, info(23, 2), 0, 7, 8, 9, 0, info(16), 8]
  const layout = new Array(24).fill(0)
  layout[23] = 4 | (4 << 8) // one word, and one word per element
  const bytes = craft([...types, ...layout], '\0', [types.length * 4, layout.length * 4])
  bytes.writeUInt32LE(types.length * 4, 12)
  const btf = parseBtf(bytes)
  t.same(btf.kinds(), ['FLOAT', 'KIND_23'])
  t.match(btf.type(1), { kind: 'UNKNOWN', number: 23 })
  t.match(btf.type(2), { kind: 'FLOAT', size: 8 })
  t.equal(
    codeOf(() => parseBtf(craft(types))),
    'invalid_kind',
    'and are refused without one',
  )
  t.end()
})

t.test('parseBtf rejects every inconsistency with a code and an offset', (t) => {
  const header = (change: (view: DataView) => void) => {
    const bytes = new Uint8Array(fixture('types-x86_64.btf'))
    change(new DataView(bytes.buffer))
    return codeOf(() => parseBtf(bytes))
  }
  t.equal(
    codeOf(() => parseBtf(new Uint8Array(0))),
    'invalid_header',
  )
  t.equal(
    codeOf(() => parseBtf(Buffer.from('not BTF at all, but long enough'))),
    'invalid_header',
  )
  t.equal(
    header((v) => v.setUint8(2, 2)),
    'unsupported',
    'version',
  )
  t.equal(
    header((v) => v.setUint8(3, 1)),
    'unsupported',
    'flags',
  )
  t.equal(
    header((v) => v.setUint32(4, 20, true)),
    'invalid_header',
    'short header',
  )
  t.equal(
    header((v) => v.setUint32(4, 1 << 30, true)),
    'truncated',
    'long header',
  )
  t.equal(
    header((v) => v.setUint32(8, 2, true)),
    'invalid_header',
    'unaligned types',
  )
  t.equal(
    header((v) => v.setUint32(12, 0xffffffff, true)),
    'invalid_header',
    'types too long',
  )
  t.equal(
    header((v) => v.setUint32(20, 0xffffffff, true)),
    'truncated',
    'strings too long',
  )
  t.equal(
    header((v) => v.setUint32(20, 0, true)),
    'invalid_strings',
    'no strings',
  )

  const refused = (words: number[], strings?: string) =>
    codeOf(() => parseBtf(craft(words, strings)))
  t.equal(refused([0, info(2), 1]), 'none', 'a pointer to itself is valid')
  t.equal(refused([0, info(2), 2]), 'invalid_type_id')
  t.equal(refused([0, info(3), 0, 0, 9, 1]), 'invalid_type_id', 'the index type of an array')
  t.equal(refused([0, info(4, 1), 4, 0, 7, 0]), 'invalid_type_id', 'member')
  t.equal(refused([1, info(16), 4]), 'invalid_name')
  t.equal(refused([0, info(6, 1), 4, 5, 0]), 'invalid_name', 'enumerator')
  t.equal(refused([0, info(0), 0]), 'invalid_kind')
  t.equal(refused([0, info(23), 0]), 'invalid_kind')
  t.equal(refused([0, info(1), 4]), 'invalid_type', 'an INT without its word')
  t.equal(refused([0, info(4, 0xffffff), 4]), 'invalid_type', 'too many members')
  t.equal(refused([0, info(12), 1]), 'invalid_type', 'a FUNC without prototype')
  t.equal(refused([0, 0]), 'invalid_type', 'a truncated type record')
  t.equal(refused([], 'a\0'), 'invalid_strings')
  t.equal(refused([], '\0a'), 'invalid_strings')
  t.throws(() => parseBtf(craft([0, info(16), 4, 0, info(2), 9])), {
    code: 'invalid_type_id',
    offset: 44,
  })
  t.equal(
    codeOf(() => x86.type(x86.endId)),
    'invalid_type_id',
  )
  t.equal(
    codeOf(() => x86.type(-1)),
    'invalid_type_id',
  )
  t.equal(
    codeOf(() => x86.string(x86.stringsEnd)),
    'invalid_name',
  )
  t.end()
})

t.test('readBtf rejects ELF without .BTF with a code of its own', (t) => {
  t.equal(
    codeOf(() => readBtf(fixture('vmlinux-mips'))),
    'missing_section',
  )
  t.equal(
    readBtf(fixture('vmlinux-x86_64')).typeCount,
    x86.typeCount,
    'an unaligned .BTF section is read',
  )
  t.end()
})

/* Properties of every BTF of the fixtures: pahole's for nine machines, and clang's for every CO-RE object. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import t from 'tap'
import {
  type BpfObject,
  type Btf,
  BtfError,
  type BtfType,
  DIALECTS,
  type Dialect,
  encodeBtf,
  mergeBtf,
  minimizeBtf,
  openObject,
  parseBtf,
  readBtf,
  toDialect,
} from '../../bpf/index.ts'
import { renumbered } from '../../bpf/renumber.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { dump, fixtureFolder, fixtureNames } from '../helpers/fixtures.ts'

const kernels = [
  ...fixtureNames(/^types-.*\.btf$/).map((name) => fixtureFolder + name),
  ...littleKernels().values(),
]
const objects = [...coreObjects('el').values(), ...coreObjects('eb').values()]
const compiled = fixtureNames(/^types-.*\.o$/).map((name) => fixtureFolder + name)
const all = [...kernels, ...compiled, ...objects].map((path) => {
  return { name: basename(path), btf: readBtf(readFileSync(path)) }
})

t.test('BTF that is read, written and read again has the same types', (t) => {
  for (const { name, btf } of all) {
    const again = parseBtf(encodeBtf(btf.types(), { byteOrder: btf.byteOrder }))
    t.equal(dump(again), dump(btf), name)
    const { byteOrder, strings } = btf
    t.ok(
      Buffer.from(encodeBtf(btf.types(), { byteOrder, strings })).equals(btf.bytes),
      'with its strings, byte for byte',
    )
  }
  t.end()
})

/** A type with its content: members with their offsets, values, elements. */
function describe(type: BtfType): { is: string; has: string[] } {
  const size = 'size' in type ? type.size : ''
  const of = type.kind === 'FWD' ? type.of : type.kind === 'ARRAY' ? type.length : ''
  const members =
    'members' in type ? type.members.map((m) => `${m.name} ${m.bitOffset} ${m.bitfieldSize}`) : []
  const values = 'values' in type ? type.values.map((v) => `${v.name} ${v.value}`) : []
  return { is: `${type.kind} ${type.name} ${size} ${of}`, has: [...members, ...values] }
}

t.test('minimised BTF has only types of the whole', (t) => {
  for (const path of littleKernels().values()) {
    const full = readBtf(readFileSync(path))
    const whole = [...full.types()].map(describe)
    let types = 0
    for (const object of objects.map((file) => openObject(readFileSync(file)))) {
      const small = minimized(full, object)
      if (!small) continue
      const strange = [...small.types()].map(describe).filter(({ is, has }) => {
        return !whole.some((type) => type.is === is && has.every((part) => type.has.includes(part)))
      })
      if (strange.length > 0) t.same(strange, [])
      types += small.typeCount
    }
    t.ok(types > 0, `${basename(path)} has ${types} types`)
  }
  t.end()
})

/** Minimises a BTF for an object; undefined for the object that no kernel accepts. */
function minimized(kernel: Btf, object: BpfObject): Btf | undefined {
  try {
    return parseBtf(minimizeBtf(kernel, [object]))
  } catch (error) {
    if (error instanceof BtfError && error.code === 'invalid_relocation') return undefined
    throw error
  }
}

t.test('merged BTF has all types of the base, and all module types that the base lacks', (t) => {
  // every BTF is a module over every kernel of its byte order; a copy of the base adds only variables
  for (const path of kernels) {
    const base = readBtf(readFileSync(path))
    const others = all.filter(({ btf }) => btf.byteOrder === base.byteOrder)
    const modules = others.map(({ btf }) => over(base, btf))
    const merged = parseBtf(mergeBtf(base, modules))
    t.ok(dump(merged).startsWith(dump(base)), `${basename(path)} and ${modules.length} modules`)
    const types = new Set([...merged.types()].map((type) => JSON.stringify(describe(type))))
    const declared = (type: BtfType) =>
      type.kind === 'FWD' || ('values' in type && type.values.length === 0)
    const lost = modules.flatMap((module) =>
      [...module.types()].filter(
        (type) => !declared(type) && !types.has(JSON.stringify(describe(type))),
      ),
    )
    t.same(lost, [])
    const places = base.countOf('VAR') + base.countOf('DATASEC')
    t.equal(parseBtf(mergeBtf(base, [over(base, base)])).typeCount, base.typeCount + places)
  }
  t.end()
})

/** The types of a BTF as split BTF over a base that they do not refer to. */
function over(base: Btf, btf: Btf): Btf {
  const shift = base.endId - 1
  const types = [...btf.types()].map((type) => renumbered(type, (id) => id + shift))
  return parseBtf(encodeBtf(types, { base, byteOrder: base.byteOrder }), { base })
}

t.test('a dialect does not change if it is applied again, or for a newer loader', (t) => {
  const dialects = Object.keys(DIALECTS) as Dialect[]
  for (const { name, btf } of all) {
    for (const dialect of dialects) {
      const once = toDialect(btf, dialect)
      const isSorted = (other: Dialect) => other === 'libbpf-1.7'
      const newer = dialects.filter(
        (other) => DIALECTS[other] >= DIALECTS[dialect] && isSorted(other) === isSorted(dialect),
      )
      const twice = newer.map((other) => toDialect(parseBtf(once), other))
      t.ok(
        twice.every((bytes) => Buffer.from(bytes).equals(once)),
        `${name} for ${dialect}`,
      )
    }
  }
  t.end()
})

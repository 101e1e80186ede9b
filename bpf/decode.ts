/* Decodes the record of a type into a value. The record was validated when its BTF was opened. */

import type { ByteOrder } from './bytes.ts'
import { HEADER_SIZE, infoFlag, infoKind, infoVlen, KIND, KINDS, kindName } from './kind.ts'
import { type BtfType, LINKAGES, type Linkage, type Member, type ReferenceType } from './type.ts'

/** Bytes that hold records of types, and the strings that the records name. */
interface RecordSource {
  readonly byteOrder: ByteOrder
  readonly view: DataView
  /** The string at an offset. */
  string(offset: number): string
}

/** Decodes the record of type `id`, which begins at byte `start` of the source's view. */
export function decode(source: RecordSource, id: number, start: number): BtfType {
  const { view } = source
  const little = source.byteOrder === 'little'
  const word = (at: number): number => view.getUint32(start + at, little)
  const text = (at: number): string => source.string(word(at))

  const name = text(0)
  const info = word(4)
  const flag = infoFlag(info)
  const third = word(8)
  const number = infoKind(info)
  const elements = <T>(read: (at: number) => T): T[] => {
    const { payload, element } = KINDS[number]!
    const list: T[] = []
    for (let i = 0; i < infoVlen(info); i++) list.push(read(HEADER_SIZE + payload + i * element))
    return list
  }
  const member = (at: number): Member => {
    const offset = word(at + 8) // BTF_MEMBER_BIT_OFFSET, BTF_MEMBER_BITFIELD_SIZE
    return {
      name: text(at),
      type: word(at + 4),
      bitOffset: flag ? offset & 0xffffff : offset,
      bitfieldSize: flag ? offset >>> 24 : 0,
    }
  }

  switch (number) {
    case KIND.INT: {
      const encoding = word(12)
      return {
        kind: 'INT',
        id,
        name,
        size: third,
        signed: (encoding & (1 << 24)) !== 0,
        char: (encoding & (2 << 24)) !== 0,
        bool: (encoding & (4 << 24)) !== 0,
        bits: encoding & 0xff,
        bitOffset: (encoding >>> 16) & 0xff,
      }
    }
    case KIND.FLOAT:
      return { kind: 'FLOAT', id, name, size: third }
    case KIND.ARRAY:
      return { kind: 'ARRAY', id, name, type: word(12), indexType: word(16), length: word(20) }
    case KIND.STRUCT:
      return { kind: 'STRUCT', id, name, size: third, flag, members: elements(member) }
    case KIND.UNION:
      return { kind: 'UNION', id, name, size: third, flag, members: elements(member) }
    case KIND.ENUM: {
      const value = (at: number) => ({
        name: text(at),
        value: flag ? word(at + 4) | 0 : word(at + 4),
      })
      return { kind: 'ENUM', id, name, size: third, signed: flag, values: elements(value) }
    }
    case KIND.ENUM64: {
      const value = (at: number) => ({
        name: text(at),
        value: wide(word(at + 4), word(at + 8), flag),
      })
      return { kind: 'ENUM64', id, name, size: third, signed: flag, values: elements(value) }
    }
    case KIND.FWD:
      return { kind: 'FWD', id, name, of: flag ? 'union' : 'struct' }
    case KIND.FUNC:
      return { kind: 'FUNC', id, name, type: third, linkage: linkage(infoVlen(info)) }
    case KIND.FUNC_PROTO: {
      const parameter = (at: number) => ({ name: text(at), type: word(at + 4) })
      return { kind: 'FUNC_PROTO', id, name, type: third, parameters: elements(parameter) }
    }
    case KIND.VAR:
      return { kind: 'VAR', id, name, type: third, linkage: linkage(word(12)) }
    case KIND.DATASEC: {
      const variable = (at: number) => ({
        type: word(at),
        offset: word(at + 4),
        size: word(at + 8),
      })
      return { kind: 'DATASEC', id, name, size: third, variables: elements(variable) }
    }
    case KIND.DECL_TAG:
      return { kind: 'DECL_TAG', id, name, type: third, component: word(12) | 0, flag }
    case KIND.LOC_PARAM:
      return { kind: 'LOC_PARAM', id, name, size: third, flags: word(12), words: elements(word) }
    case KIND.LOC_PROTO:
      return { kind: 'LOC_PROTO', id, name, places: elements(word) }
    case KIND.LOCSEC: {
      const location = (at: number) => ({
        func: word(at),
        proto: word(at + 4),
        offset: word(at + 8),
      })
      return { kind: 'LOCSEC', id, name, locations: elements(location) }
    }
    case KIND.PTR:
    case KIND.TYPEDEF:
    case KIND.VOLATILE:
    case KIND.CONST:
    case KIND.RESTRICT:
    case KIND.TYPE_TAG:
      return { kind: kindName(number) as ReferenceType['kind'], id, name, type: third, flag }
    default:
      return { kind: 'UNKNOWN', id, name, number }
  }
}

function linkage(value: number): Linkage {
  return LINKAGES[value] ?? 'extern'
}

function wide(low: number, high: number, signed: boolean): bigint {
  const value = (BigInt(high) << 32n) | BigInt(low)
  return signed ? BigInt.asIntN(64, value) : value
}

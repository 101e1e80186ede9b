/* Changes the ids in a type: its own and those that it refers to. */

import type { BtfType } from './type.ts'

/** A copy of the type with every id mapped; void stays void. */
export function renumbered(type: BtfType, map: (id: number) => number): BtfType {
  if (type.kind === 'VOID') return type
  const to = (id: number) => (id === 0 ? 0 : map(id))
  const id = map(type.id)
  switch (type.kind) {
    case 'INT':
    case 'FLOAT':
    case 'ENUM':
    case 'ENUM64':
    case 'FWD':
    case 'LOC_PARAM':
    case 'UNKNOWN':
      return { ...type, id }
    case 'ARRAY':
      return { ...type, id, type: to(type.type), indexType: to(type.indexType) }
    case 'STRUCT':
    case 'UNION':
      return { ...type, id, members: type.members.map((m) => ({ ...m, type: to(m.type) })) }
    case 'FUNC_PROTO': {
      const parameters = type.parameters.map((p) => ({ ...p, type: to(p.type) }))
      return { ...type, id, type: to(type.type), parameters }
    }
    case 'DATASEC': {
      const variables = type.variables.map((v) => ({ ...v, type: to(v.type) }))
      return { ...type, id, variables }
    }
    case 'LOC_PROTO':
      return { ...type, id, places: type.places.map(to) }
    case 'LOCSEC': {
      const locations = type.locations.map((l) => ({ ...l, func: to(l.func), proto: to(l.proto) }))
      return { ...type, id, locations }
    }
    default:
      return { ...type, id, type: to(type.type) }
  }
}

/* The binary fixtures of test/fixtures/bpf, and dumps of BTF by bpftool and by our reader. */

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Btf, BtfType } from '../../bpf/index.ts'

export const fixtureFolder = fileURLToPath(new URL('../fixtures/bpf/built/', import.meta.url))

/** The names of the fixtures that match a pattern. */
export function fixtureNames(pattern: RegExp): string[] {
  return readdirSync(fixtureFolder)
    .filter((name) => pattern.test(name))
    .sort()
}

/** The bytes of a fixture. */
export function fixture(name: string): Buffer {
  return readFileSync(fixtureFolder + name)
}

/** The output of `bpftool btf dump file FILE format raw`; `base` is its option -B. */
export function bpftoolDump(file: string, base?: string): string {
  const args = ['btf', 'dump', 'file', file, 'format', 'raw']
  return execFileSync('bpftool', base ? ['-B', base, ...args] : args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  })
}

/** The same text from our reader, for the types of a BTF without those of its base. */
export function dump(btf: Btf): string {
  let text = ''
  for (const type of btf.types()) text += `[${type.id}] ${describe(btf, type)}\n`
  return text
}

function describe(btf: Btf, type: BtfType): string {
  const head = (rest: string) => `${type.kind} '${type.name || '(anon)'}' ${rest}`
  const lines = (rest: string, list: readonly string[]) => [head(rest), ...list].join('\n\t')
  const named = (name: string, rest: string) => `'${name || '(anon)'}' ${rest}`
  switch (type.kind) {
    case 'INT': {
      const encoding = `${Number(type.signed)}${Number(type.char)}${Number(type.bool)}`
      const names: Record<string, string> = {
        '000': '(none)',
        '100': 'SIGNED',
        '010': 'CHAR',
        '001': 'BOOL',
      }
      return head(
        `size=${type.size} bits_offset=${type.bitOffset} nr_bits=${type.bits} encoding=${names[encoding]}`,
      )
    }
    case 'FLOAT':
      return head(`size=${type.size}`)
    case 'ARRAY':
      return head(`type_id=${type.type} index_type_id=${type.indexType} nr_elems=${type.length}`)
    case 'STRUCT':
    case 'UNION':
      return lines(
        `size=${type.size} vlen=${type.members.length}`,
        type.members.map((m) => {
          const bits = m.bitfieldSize ? ` bitfield_size=${m.bitfieldSize}` : ''
          return named(m.name, `type_id=${m.type} bits_offset=${m.bitOffset}${bits}`)
        }),
      )
    case 'ENUM':
    case 'ENUM64': {
      const suffix = type.kind === 'ENUM' ? '' : type.signed ? 'LL' : 'ULL'
      return lines(
        `encoding=${type.signed ? 'SIGNED' : 'UNSIGNED'} size=${type.size} vlen=${type.values.length}`,
        type.values.map((v) => named(v.name, `val=${v.value}${suffix}`)),
      )
    }
    case 'FWD':
      return head(`fwd_kind=${type.of}`)
    case 'FUNC':
      return head(`type_id=${type.type} linkage=${type.linkage}`)
    case 'FUNC_PROTO':
      return lines(
        `ret_type_id=${type.type} vlen=${type.parameters.length}`,
        type.parameters.map((p) => named(p.name, `type_id=${p.type}`)),
      )
    case 'VAR':
      return head(`type_id=${type.type}, linkage=${type.linkage}`)
    case 'DATASEC':
      return lines(
        `size=${type.size} vlen=${type.variables.length}`,
        type.variables.map((v) => {
          const of = btf.type(v.type)
          return `type_id=${v.type} offset=${v.offset} size=${v.size} (${of.kind} '${of.name || '(anon)'}')`
        }),
      )
    case 'DECL_TAG':
      return head(`type_id=${type.type} component_idx=${type.component}`)
    case 'LOC_PARAM':
      return head(`size=${type.size} flags=0x${type.flags.toString(16)} vlen=${type.words.length}`)
    case 'LOC_PROTO':
      return lines(
        `vlen=${type.places.length}`,
        type.places.map((place) => `type_id=${place}`),
      )
    case 'LOCSEC':
      return lines(
        `vlen=${type.locations.length}`,
        type.locations.map(
          (l) =>
            `name='${btf.name(l.func)}' func_type_id=${l.func} loc_proto_type_id=${l.proto} offset=${l.offset}`,
        ),
      )
    case 'VOID':
    case 'UNKNOWN':
      return head('')
    default:
      return head(`type_id=${type.type}`)
  }
}

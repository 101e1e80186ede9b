/*
 * A table of offsets as text, for programs that have it compiled in. Most kernels of a series agree, so a row of values is
 * written once and kernels refer to it. Equal input gives equal bytes.
 *
 * - json: one object: `constants`, the rows, and `kernels`, with the index of their row. A missing value is null.
 * - c, go: the same as source. A missing value has a kind of its own: it is never a number that could be taken for one.
 * - datadog: pkg/security/probe/constantfetch/btfhub.go `BTFHubConstants`, of DataDog/datadog-agent; what is missing is
 *   absent, which its reader turns into `ErrorSentinel`. It looks for VERSION_ID as os-release has it, but for `ol` 7 and
 *   `amzn` 2018, whose minor version it cuts off.
 * - quark: btfhub.c of elastic/quark, as its genbtf.sh and `quark-btf -g` write it; what is missing is -1.
 */
import type { KernelConstant } from '../../bpf/index.ts'
import { archiveArch, type KernelName, versionIdsOf } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { printable } from '../printable.ts'

export const OFFSET_FORMATS = ['json', 'c', 'go', 'datadog', 'quark'] as const
export type OffsetFormat = (typeof OFFSET_FORMATS)[number]

/** An entry of a list of offsets: the first of its paths that a kernel has counts. */
export interface OffsetEntry {
  readonly name: string
  /** at least one */
  readonly paths: readonly string[]
}

/** A name as an identifier of C and Go. */
export const identifierOf = (name: string): string => name.replaceAll('.', '_')

/** The rows of a table, and its kernels in order of their names. */
export interface OffsetTable {
  readonly entries: readonly OffsetEntry[]
  /** of distinct values, in order of the entries */
  readonly rows: readonly (readonly KernelConstant[])[]
  readonly kernels: readonly OffsetKernel[]
}

export interface OffsetKernel {
  /** DISTRO/VERSION/ARCH/RELEASE, or the name that was given */
  readonly name: string
  /** undefined for a file */
  readonly kernel: KernelName | undefined
  /** the package version, if a kernel has several builds with different BTF */
  readonly build: string | undefined
  /** index of its row */
  readonly row: number
}

/** Prints a table, in pieces. */
export function printOffsets(format: OffsetFormat, table: OffsetTable): Iterable<string> {
  return PRINTERS[format](table)
}

/** Tells whether a format holds the names of kernels in parts, and no builds. */
export const needsKernelNames = (format: OffsetFormat): boolean => format !== 'json'
export const needsOneBuild = (format: OffsetFormat): boolean =>
  format === 'datadog' || format === 'quark'

const PRINTERS: Readonly<Record<OffsetFormat, (table: OffsetTable) => Generator<string>>> = {
  json,
  c,
  go,
  datadog,
  quark,
}

function* json({ entries, rows, kernels }: OffsetTable): Generator<string> {
  const lines = (items: readonly unknown[]) => items.map((item) => jsonOf(item)).join(',\n')
  const named = rows.map((row) =>
    Object.fromEntries(row.map((constant, n) => [entries[n]!.name, jsonValue(constant)])),
  )
  yield `{"constants":[\n${lines(named)}\n],"kernels":[\n`
  const numbered = kernels.map(({ name, build, row }) => ({
    kernel: name,
    ...(build !== undefined && { build }),
    constants: row,
  }))
  yield `${lines(numbered)}\n]}\n`
}

function jsonValue(constant: KernelConstant) {
  switch (constant.kind) {
    case 'offset':
      return { offset: constant.value }
    case 'size':
      return { size: constant.value }
    case 'bitfield':
      return { bitOffset: constant.value, bits: constant.bits }
    case 'enumerator':
      return { value: constant.value }
    default:
      return null
  }
}

const MADE_BY = 'made by `btfmill offsets`'

/** The kinds of values as C and Go have them; what is not here is missing. */
const KINDS = [
  { kind: 'missing', name: 'MISSING', comment: 'the kernel has no such type or member' },
  { kind: 'offset', name: 'OFFSET', comment: 'of a member, in bytes' },
  {
    kind: 'bitfield',
    name: 'BITFIELD',
    comment: 'offset of a bitfield, in bits; bits is its width',
  },
  { kind: 'size', name: 'SIZE', comment: 'of a type, in bytes' },
  { kind: 'enumerator', name: 'ENUMERATOR', comment: 'value of an enumerator' },
] as const

/** Kind, value and width of a constant in a table of C or Go. */
function partsOf(constant: KernelConstant): { kind: string; value: bigint; bits: number } {
  const kind = KINDS.find(({ kind }) => kind === constant.kind)?.name ?? 'MISSING'
  const value = 'value' in constant ? BigInt.asIntN(64, BigInt(constant.value)) : 0n
  return { kind, value, bits: constant.kind === 'bitfield' ? constant.bits : 0 }
}

const MIN_INT64 = -(2n ** 63n)

function* c({ entries, rows, kernels }: OffsetTable): Generator<string> {
  yield `/* Offsets of kernels, ${MADE_BY}. Do not edit. */\n`
  yield '#ifndef BTFMILL_OFFSETS_H\n#define BTFMILL_OFFSETS_H\n\n#include <stdint.h>\n\n'
  yield '/* Columns of btfmill_rows. */\nenum btfmill_name {\n'
  for (const { name } of entries) yield `\tBTFMILL_NAME_${identifierOf(name)},\n`
  yield '\tBTFMILL_NAMES\n};\n\n/* What a value is. */\nenum btfmill_kind {\n'
  for (const { name, comment } of KINDS) yield `\tBTFMILL_KIND_${name}, /* ${comment} */\n`
  yield '};\n\nstruct btfmill_constant {\n\tint64_t value;\n\tuint8_t kind;\n\tuint8_t bits;\n};\n\n'
  yield '/* build is the package version of a kernel that was built more than once, otherwise empty. */\n'
  yield 'struct btfmill_kernel {\n\tconst char *distro, *version, *arch, *release, *build;\n\tuint32_t row;\n};\n\n'
  yield 'static const struct btfmill_constant btfmill_rows[][BTFMILL_NAMES] = {\n'
  const number = (value: bigint) => (value === MIN_INT64 ? 'INT64_MIN' : `INT64_C(${value})`)
  for (const row of rows) {
    yield '\t{\n'
    for (const [n, constant] of row.entries()) {
      const { kind, value, bits } = partsOf(constant)
      yield `\t\t{ ${number(value)}, BTFMILL_KIND_${kind}, ${bits} }, /* ${entries[n]!.name} */\n`
    }
    yield '\t},\n'
  }
  yield '};\n\nstatic const struct btfmill_kernel btfmill_kernels[] = {\n'
  for (const one of kernels) yield `\t{ ${wordsOf(one).map(quoted).join(', ')}, ${one.row} },\n`
  yield '};\n\n#endif\n'
}

function* go({ entries, rows, kernels }: OffsetTable): Generator<string> {
  yield `// Code generated by btfmill offsets. DO NOT EDIT.\n\n`
  yield '// Package offsets has offsets of kernels.\npackage offsets\n\n'
  yield '// Kind says what a value is.\ntype Kind uint8\n\nconst (\n'
  for (const [n, { name, comment }] of KINDS.entries())
    yield `\t// Kind${titled(name)}: ${comment}.\n\tKind${titled(name)}${n === 0 ? ' Kind = iota' : ''}\n`
  yield ')\n\n// Constant is a value of a kernel; Bits is the width of a bitfield.\n'
  yield 'type Constant struct {\n\tValue int64\n\tKind  Kind\n\tBits  uint8\n}\n\n'
  yield '// Kernel names a kernel, and its row of Rows. Build is the package version of a kernel that was built more than once.\n'
  yield 'type Kernel struct {\n\tDistro, Version, Arch, Release, Build string\n\n\tRow int\n}\n\n'
  yield '// Columns of Rows.\nconst (\n'
  for (const [n, { name }] of entries.entries())
    yield `\tName_${identifierOf(name)}${n === 0 ? ' = iota' : ''}\n`
  yield ')\n\n// Names are the names of the columns.\nvar Names = []string{\n'
  for (const { name } of entries) yield `\t${quoted(name)},\n`
  yield '}\n\n// Rows are the values of kernels.\nvar Rows = [][]Constant{\n'
  for (const row of rows) {
    yield '\t{\n'
    for (const constant of row) {
      const { kind, value, bits } = partsOf(constant)
      yield `\t\t{${value}, Kind${titled(kind)}, ${bits}},\n`
    }
    yield '\t},\n'
  }
  yield '}\n\n// Kernels are in order of their names.\nvar Kernels = []Kernel{\n'
  for (const one of kernels) yield `\t{${wordsOf(one).map(quoted).join(', ')}, ${one.row}},\n`
  yield '}\n'
}

const titled = (name: string): string => name[0]! + name.slice(1).toLowerCase()

const wordsOf = ({ kernel, build = '' }: OffsetKernel): string[] => {
  const { distro, version, arch, release } = kernel!
  return [distro, version, arch, release, build]
}

/** A string of C and of Go. Names come from outside; octal escapes are the same in both, and `??/` is a trigraph of C. */
const quoted = (text: string): string =>
  `"${text.replace(/["\\?\p{Cc}\p{Cf}]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
  )}"`

function* datadog({ entries, rows, kernels }: OffsetTable): Generator<string> {
  const constants = rows.map((row) => {
    const values = row.flatMap((constant, n) =>
      // a reader of JSON may take larger numbers than these for others
      'value' in constant &&
      constant.kind !== 'bitfield' &&
      typeof constant.value === 'number' &&
      constant.value >= 0
        ? [[entries[n]!.name, constant.value] as const]
        : [],
    )
    return Object.fromEntries(values.sort(([a], [b]) => (a < b ? -1 : 1)))
  })
  const named = kernels.flatMap(({ kernel, row }) =>
    versionsOf(kernel!).map((version) => ({
      distrib: kernel!.distro,
      version,
      arch: archiveArch(kernel!.arch),
      uname_release: kernel!.release,
      cindex: row,
    })),
  )
  yield `${JSON.stringify({ constants, kernels: named }, undefined, '\t')}
`
}

/** The stored version, as the agent cuts it, and each VERSION_ID of its machines. */
const versionsOf = (kernel: KernelName): string[] => [
  ...new Set([kernel.version, ...(versionIdsOf(kernel) ?? [])]),
]

/** The architectures that quark runs on, by the compiler's macro. */
const QUARK_ARCHS = { x86_64: '__amd64__', aarch64: '__aarch64__' } as const

function* quark({ entries, rows, kernels }: OffsetTable): Generator<string> {
  yield `// ${MADE_BY}\n#include "quark.h"\n\n`
  const width = Math.max(...entries.map(({ name }) => name.length))
  const tables: string[] = []
  for (const [arch, macro] of Object.entries(QUARK_ARCHS)) {
    const names = new Set<string>()
    yield `#ifdef ${macro}\n\n`
    for (const { name, kernel, row } of kernels.filter(({ kernel }) => kernel!.arch === arch)) {
      const { distro, version, release } = kernel!
      const plain = `btf_${[distro, version, release].join('_').replace(/\W/g, '_')}`
      let identifier = plain
      for (let n = 2; names.has(identifier); n++) identifier = `${plain}_${n}`
      names.add(identifier)
      yield `/* ${commentOf(name)} */\nstatic struct quark_btf ${identifier} = {\n\t${quoted(release)}, {\n`
      for (const [n, constant] of rows[row]!.entries())
        yield `\t{ ${quoted(entries[n]!.name)
          .concat(',')
          .padEnd(width + 3)} ${quarkValue(constant)} },\n`
      yield `\t{ ${'NULL,'.padEnd(width + 3)} -1 },\n\t}\n};\n\n`
    }
    yield '#endif\n\n'
    tables.push(`#ifdef ${macro}\n${[...names].map((name) => `\t&${name},\n`).join('')}#endif\n`)
  }
  yield `struct quark_btf *all_btfs[] = {\n${tables.join('')}\tNULL\n};\n`
}

const commentOf = (name: string): string => printable(name).replaceAll('*/', '* /')

/** quark's offsets are bytes, and it takes no bitfields (qbtf.c `btf_offsetof_rec`). */
const quarkValue = (constant: KernelConstant): string =>
  'value' in constant && constant.kind !== 'bitfield' ? String(constant.value) : '-1'

/* The CO-RE fixtures of test/fixtures/core: objects in both byte orders, and small kernels to relocate them against. */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Btf, type BtfType, encodeBtf, parseBtf } from '../../bpf/index.ts'

export const coreFolder = fileURLToPath(new URL('../fixtures/core/built/', import.meta.url))

/** The paths of the little-endian (`el`) or big-endian (`eb`) objects, by the name of their source. */
export function coreObjects(order: 'el' | 'eb'): Map<string, string> {
  return filesOf(new RegExp(`^(.*)\\.${order}\\.o$`))
}

/** The paths of the small kernels' raw BTF, by machine. s390x and ppc are big-endian; i686 and ppc have 32 bits. */
export function littleKernels(): Map<string, string> {
  return filesOf(/^kernel-(.*)\.btf$/)
}

function filesOf(pattern: RegExp): Map<string, string> {
  const named = readdirSync(coreFolder).flatMap((file) => {
    const name = file.match(pattern)?.[1]
    return name === undefined ? [] : [[name, coreFolder + file] as const]
  })
  return new Map(named.sort(([a], [b]) => (a < b ? -1 : 1)))
}

const ENUMERATORS: Record<string, readonly string[]> = {
  bpf_func_id: Array.from({ length: 220 }, (_, n) => `BPF_FUNC_number_${n}`),
  bpf_map_type: Array.from({ length: 34 }, (_, n) => `BPF_MAP_TYPE_NUMBER_${n}`),
  bpf_prog_type: ['RAW_TRACEPOINT', 'KPROBE', 'TRACING', 'LSM', 'STRUCT_OPS', 'SOCKET_FILTER'].map(
    (name) => `BPF_PROG_TYPE_${name}`,
  ),
  bpf_attach_type: ['BPF_TRACE_RAW_TP', 'BPF_TRACE_FENTRY', 'BPF_LSM_MAC', 'BPF_TRACE_ITER'],
}

/**
 * A small kernel with what every kernel with BPF has besides, so that only its own types decide: all helpers, types of
 * maps and programs. `functions` take and return a
 * pointer to task_struct.
 */
export function wholeKernel(small: Btf, functions: readonly string[] = []): Btf {
  const missing = new Set(Object.keys(ENUMERATORS))
  const withValues = (type: Extract<BtfType, { kind: 'ENUM' }>): BtfType => {
    missing.delete(type.name)
    const names = new Set(type.values.map(({ name }) => name))
    const added = ENUMERATORS[type.name]!.map((name, value) => ({ name, value }))
    return { ...type, values: [...type.values, ...added.filter(({ name }) => !names.has(name))] }
  }
  const types = [...small.types()].map((type) =>
    type.kind === 'ENUM' && type.name in ENUMERATORS ? withValues(type) : type,
  )
  const add = (type: BtfType) => types.push({ ...type, id: types.length + 1 } as BtfType)
  for (const name of missing) {
    add(withValues({ kind: 'ENUM', id: 0, name, size: 4, signed: false, values: [] }))
  }
  const type = add({
    kind: 'PTR',
    id: 0,
    name: '',
    type: small.find('task_struct') ?? 0,
    flag: false,
  })
  const parameters = [{ name: 'task', type }]
  const proto = add({ kind: 'FUNC_PROTO', id: 0, name: '', type, parameters })
  for (const name of functions) add({ kind: 'FUNC', id: 0, name, type: proto, linkage: 'static' })
  return parseBtf(encodeBtf(types, { byteOrder: small.byteOrder }), {
    pointerSize: small.pointerSize,
  })
}

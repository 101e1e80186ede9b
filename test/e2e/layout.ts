// Layouts of named structs and unions as bpftool reads them: an independent reader, to compare generated BTF with the BTF
// of the kernel's own build.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

interface Member {
  name: string
  bits_offset: number
  bitfield_size?: number
}

interface Type {
  kind: string
  name: string
  size?: number
  members?: Member[]
}

/**
 * Maps `STRUCT name` and `UNION name` to the facts that CO-RE relocations depend on: size in bytes, and each member's
 * name, bit offset and bitfield size, in order. Different types with one name are all listed, sorted.
 */
export async function readLayouts(btf: string): Promise<Map<string, string[]>> {
  const { stdout } = await promisify(execFile)('bpftool', ['--json', 'btf', 'dump', 'file', btf], {
    maxBuffer: 1 << 30,
    timeout: 120_000,
  })
  const { types } = JSON.parse(stdout) as { types: Type[] }
  const layouts = new Map<string, string[]>()
  for (const { kind, name, size, members } of types) {
    if ((kind !== 'STRUCT' && kind !== 'UNION') || name === '(anon)') continue
    const key = `${kind} ${name}`
    const fields = (members ?? []).map((m) => `${m.name}@${m.bits_offset}:${m.bitfield_size ?? 0}`)
    layouts.set(key, [...(layouts.get(key) ?? []), `${size} ${fields.join(' ')}`].sort())
  }
  return layouts
}

/** Returns the names whose layouts differ, or that one side lacks. */
export function differences(a: Map<string, string[]>, b: Map<string, string[]>): string[] {
  const names = new Set([...a.keys(), ...b.keys()])
  return [...names].filter((name) => a.get(name)?.join('\n') !== b.get(name)?.join('\n'))
}

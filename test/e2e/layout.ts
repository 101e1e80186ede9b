// The layouts of a BTF's named structs and unions, as bpftool reads them: an eye that is not ours, for the comparison
// of generated BTF with the BTF that the kernel's own build made.
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
 * Maps `STRUCT name` and `UNION name` to what a CO-RE relocation rests on: size in bytes, and each member's name, bit
 * offset and bitfield size, in order. Different types of one name are all there, sorted.
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

/** The names whose layouts differ, or that one side lacks. */
export function differences(a: Map<string, string[]>, b: Map<string, string[]>): string[] {
  const names = new Set([...a.keys(), ...b.keys()])
  return [...names].filter((name) => a.get(name)?.join('\n') !== b.get(name)?.join('\n'))
}

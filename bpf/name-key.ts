/* Keys of names, for sets of them. Several names may have one key. */
import { essentialName } from './flavour.ts'

/** The key of a name without its flavour: a signed number of 32 bits. */
export function nameKey(name: Uint8Array): number {
  const { length } = essentialName(name)
  let key = 0x811c9dc5 | 0
  for (let i = 0; i < length; i++) key = Math.imul(key ^ name[i]!, 0x01000193) // FNV-1a
  return key
}

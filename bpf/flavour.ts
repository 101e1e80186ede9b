/*
 * Flavours: `task_struct___old` is an object's own version of the kernel's `task_struct`. The essential name ends before
 * the last `___` with a character other than `_` on both sides (libbpf `bpf_core_essential_name_len`).
 */

const UNDERSCORE = 0x5f

/** Length of a name without its flavour; `name` has no NUL. */
function essentialLength(name: Uint8Array): number {
  for (let i = name.length - 5; i >= 0; i--) {
    if (
      name[i + 1] === UNDERSCORE &&
      name[i + 2] === UNDERSCORE &&
      name[i + 3] === UNDERSCORE &&
      name[i] !== UNDERSCORE &&
      name[i + 4] !== UNDERSCORE
    ) {
      return i + 1
    }
  }
  return name.length
}

/** A name without its flavour. */
export function essentialName(name: Uint8Array): Uint8Array {
  return name.subarray(0, essentialLength(name))
}

/** True if two names are the same without their flavours. */
export function sameEssence(a: Uint8Array, b: Uint8Array): boolean {
  // most names differ in the first letter
  if (a[0] !== b[0]) return false
  const length = essentialLength(a)
  if (essentialLength(b) !== length) return false
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false
  return true
}

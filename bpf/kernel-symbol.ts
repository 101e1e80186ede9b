/* What a kernel gives the externs of an object, as far as its BTF tells (libbpf `bpf_object__resolve_externs`). */

import type { Btf } from './btf.ts'
import type { ExternValue } from './reachability.ts'
import type { BpfExtern } from './reference.ts'

/** Returns a function that looks externs up in a kernel's BTF, each once. */
export function externsOf(kernel: Btf): (extern: BpfExtern) => ExternValue {
  const known = new Map<string, ExternValue>()
  return (extern) => {
    const key = `${extern.kind} ${extern.name}`
    let value = known.get(key)
    if (!value) {
      value = lookUp(kernel, extern)
      known.set(key, value)
    }
    return value
  }
}

function lookUp(kernel: Btf, { kind, name }: BpfExtern): ExternValue {
  // BTF does not have the kernel's configuration
  if (kind === 'kconfig') return { is: 'unknown' }
  if (kernel.find(name, 'FUNC') !== undefined) return { is: 'address' }
  if (kind === 'kfunc') return { is: 'absent' }
  // BTF lists only the variables of each processor
  return { is: kernel.find(name, 'VAR') === undefined ? 'unknown' : 'address' }
}

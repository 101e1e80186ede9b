/*
 * What a kernel has, as far as its BTF tells: functions, variables, tracepoints, helpers, types of maps and programs. The
 * numbers of helpers and types come from the kernel's own enums, so what a distribution ported back counts.
 */

import type { Btf } from './btf.ts'
import { encodeText } from './bytes.ts'
import { Comparison } from './compatible.ts'
import { HEADER_SIZE, KIND, kindName } from './kind.ts'
import { resolve } from './layout.ts'
import { NameQuery } from './name-query.ts'
import type { BpfObject } from './object.ts'
import type { ExternValue } from './reachability.ts'
import type { BpfExtern } from './reference.ts'
import { RelocationError } from './relocation-error.ts'
import { type Requirements, requirementsOf, type WantedType } from './requirement.ts'
import type { TypeSource } from './type-source.ts'

/** What is known of something a kernel may have. */
export type Presence = 'there' | 'missing' | 'unknown'

const ENUMS = ['bpf_func_id', 'bpf_map_type', 'bpf_prog_type', 'bpf_attach_type'] as const
export type KernelEnum = (typeof ENUMS)[number]

/** Facts of a kernel besides the BTF of its vmlinux; see `CheckOptions`. */
interface SymbolOptions {
  modules?: readonly Btf[]
  release?: string | undefined
  onVersion?: (() => void) | undefined
}

/** LINUX_KERNEL_VERSION of a release, as libbpf has it; undefined if it begins with no version. */
export function versionOf(release: string): number | undefined {
  const match = /^(\d+)\.(\d+)(?:\.(\d+))?/.exec(release)
  if (!match) return undefined
  const [major, minor, patch] = [match[1], match[2], match[3] ?? '0'].map(Number)
  return (major! << 16) + (minor! << 8) + Math.min(patch!, 255)
}

/** Looks up what one object asks of one kernel. */
export class KernelSymbols {
  readonly #object: BpfObject
  readonly #release: string | undefined
  readonly #onVersion: () => void
  readonly #found = new Map<string, { btf: TypeSource; id: number }>()
  readonly #externs = new Map<BpfExtern, ExternValue | 'incompatible'>()
  readonly #enumerators = new Map<string, Presence>()
  readonly #numbers = new Map<KernelEnum, ReadonlySet<number>>()
  readonly #kernel: TypeSource

  /**
   * `modules` are open over `kernel`; `release` is its `uname -r`; `ids` has all of the kernel's types that `search`
   * asks for.
   */
  constructor(
    object: BpfObject,
    search: SymbolSearch,
    kernel: TypeSource,
    { modules = [], release, onVersion = () => {} }: SymbolOptions,
    ids: readonly number[],
  ) {
    this.#object = object
    this.#kernel = kernel
    this.#release = release
    this.#onVersion = onVersion
    for (const btf of [kernel, ...modules]) {
      const all = btf === kernel ? ids : btf.idsOf(search.query(), true)
      for (const [key, id] of search.among(btf, all)) {
        if (!this.#found.has(key)) this.#found.set(key, { btf, id })
      }
    }
  }

  has({ kind, name }: WantedType): boolean {
    return this.#found.has(`${kind} ${name}`)
  }

  /** True if the BTF of a module has a type that the kernel's own has not. */
  hasInModule({ kind, name }: WantedType): boolean {
    const found = this.#found.get(`${kind} ${name}`)
    return found !== undefined && found.btf !== this.#kernel
  }

  /** True if the kernel's BTF lists tracepoints: BTF of kernels before 5.4 does not. */
  get hasTracepoints(): boolean {
    return TRACEPOINTS.some((name) => this.has({ kind: 'TYPEDEF', name }))
  }

  /** Tells whether an enum of the kernel has an enumerator; unknown if the kernel's BTF lacks the enum. */
  enumerator(name: KernelEnum, enumerator: string | number): Presence {
    const key = `${name} ${enumerator}`
    let presence = this.#enumerators.get(key)
    if (!presence) {
      presence = this.#findEnumerator(name, enumerator)
      this.#enumerators.set(key, presence)
    }
    return presence
  }

  /** Tells whether the verifier knows the atomic operations of Linux 5.12, as its functions and the helpers of that version tell. */
  get atomics(): Presence {
    const hasFunction = (name: string) => this.has({ kind: 'FUNC', name })
    if (hasFunction(OLD_ATOMIC)) return 'missing'
    if (hasFunction(ATOMIC)) return 'there'
    return this.enumerator('bpf_func_id', CHECK_MTU) === 'there' ? 'there' : 'unknown'
  }

  /** What the kernel gives an extern. */
  extern(extern: BpfExtern): ExternValue {
    const value = this.#resolved(extern)
    return value === 'incompatible' ? { is: 'absent' } : value
  }

  /** True if the kernel has the symbol with another type or prototype. */
  isIncompatible(extern: BpfExtern): boolean {
    return this.#resolved(extern) === 'incompatible'
  }

  #findEnumerator(name: KernelEnum, enumerator: string | number): Presence {
    const id = this.#found.get(`ENUM ${name}`)?.id
    if (id === undefined) return 'unknown'
    const kernel = this.#kernel
    if (typeof enumerator === 'number') {
      let numbers = this.#numbers.get(name)
      if (!numbers) {
        numbers = numbersOf(kernel, id)
        this.#numbers.set(name, numbers)
      }
      return numbers.has(enumerator) ? 'there' : 'missing'
    }
    const bytes = encodeText(enumerator)
    for (let n = 0; n < kernel.vlen(id); n++) {
      if (kernel.stringIs(kernel.word(id, HEADER_SIZE + 8 * n), bytes)) return 'there'
    }
    return 'missing'
  }

  #resolved(extern: BpfExtern): ExternValue | 'incompatible' {
    let value = this.#externs.get(extern)
    if (!value) {
      value = extern.kind === 'kconfig' ? this.#configured(extern) : this.#symbol(extern)
      this.#externs.set(extern, value)
    }
    return value
  }

  /** libbpf makes the values that begin with LINUX_ itself; BTF does not have the others. */
  #configured({ name }: BpfExtern): ExternValue {
    if (name === 'LINUX_KERNEL_VERSION' && this.#release !== undefined) {
      const version = versionOf(this.#release)
      const onVersion = this.#onVersion
      if (version !== undefined)
        return {
          is: 'number',
          get value() {
            onVersion()
            return BigInt(version)
          },
        }
    }
    // libbpf tries a program that calls the helper (FEAT_BPF_COOKIE)
    if (name === 'LINUX_HAS_BPF_COOKIE') {
      const cookie = this.enumerator('bpf_func_id', GET_ATTACH_COOKIE)
      if (cookie !== 'unknown') return { is: 'number', value: cookie === 'there' ? 1n : 0n }
    }
    // libbpf asks for such a function (FEAT_SYSCALL_WRAPPER)
    if (name === 'LINUX_HAS_SYSCALL_WRAPPER') {
      const isThere = WRAPPED_BPF.some((wrapped) => this.has({ kind: 'FUNC', name: wrapped }))
      if (isThere) return { is: 'number', value: 1n }
    }
    if (name.startsWith('CONFIG_') || name.startsWith('LINUX_')) return { is: 'unknown' }
    return { is: 'absent' }
  }

  #symbol(extern: BpfExtern): ExternValue | 'incompatible' {
    const { kind, name, id } = extern
    const local = this.#object.btf
    const wanted = kind === 'kfunc' ? 'FUNC' : 'VAR'
    const found = this.#found.get(`${wanted} ${withoutFlavour(name)}`)
    const type = local.sizeOrType(id)
    if (extern.typeless) {
      // an address without a type comes from /proc/kallsyms, which has more than BTF
      const isFunction = this.#found.has(`FUNC ${name}`)
      return { is: found || isFunction ? 'address' : 'unknown' }
    }
    if (!found) return { is: 'absent' }
    const theirs = found.btf.sizeOrType(found.id)
    const target = kind === 'kfunc' ? theirs : resolve(found.btf, theirs)
    const ours = kind === 'kfunc' ? type : resolve(local, type)
    try {
      const isCompatible = new Comparison(local, found.btf).types(ours, target)
      return isCompatible ? { is: 'address' } : 'incompatible'
    } catch (error) {
      if (error instanceof RelocationError) return 'incompatible'
      throw error
    }
  }
}

/** Two underscores, as `Btf.head` has them: the last enumerator, such as __BPF_FUNC_MAX_ID, is none of its kind. */
const UNDERSCORES = 0x5f5f

function numbersOf(kernel: TypeSource, id: number): Set<number> {
  const numbers = new Set<number>()
  for (let n = 0; n < kernel.vlen(id); n++) {
    const at = HEADER_SIZE + 8 * n
    if (kernel.head(kernel.word(id, at)) !== UNDERSCORES) numbers.add(kernel.word(id, at + 4))
  }
  return numbers
}

/** True if an object asks for a function, tracepoint or symbol that vmlinux lacks: a module may have it. */
export function lacksSymbols(
  object: BpfObject,
  vmlinux: TypeSource,
  ids: readonly number[],
): boolean {
  const wanted = [
    ...requirementsOf(object).programs.flatMap(({ target }) => target ?? []),
    ...object.externs.flatMap(({ kind, name, typeless }): WantedType[] => {
      if (kind === 'kconfig' || typeless) return []
      return [{ kind: kind === 'kfunc' ? 'FUNC' : 'VAR', name: withoutFlavour(name) }]
    }),
  ]
  const search = new SymbolSearch(wanted)
  const found = new Set(search.among(vmlinux, ids).map(([key]) => key))
  return wanted.some(({ kind, name }) => !found.has(`${kind} ${name}`))
}

/** The kernel's name of a kfunc that an object declares as NAME___FLAVOUR. */
function withoutFlavour(name: string): string {
  return name.replace(/___[^_].*$/, '')
}

const GET_ATTACH_COOKIE = 174
/** a helper that came with Linux 5.12 */
const CHECK_MTU = 163

/** The verifier's functions for atomic operations, before and since Linux 5.12. */
const [OLD_ATOMIC, ATOMIC] = ['check_xadd', 'check_atomic'] as const

/** Tracepoints that every kernel has. */
const TRACEPOINTS = ['btf_trace_sched_switch', 'btf_trace_sys_enter']

/** The system call bpf(2) of kernels whose system calls have wrappers. */
const WRAPPED_BPF = ['x64', 'ia32', 'arm64', 's390x', 's390', 'riscv'].map(
  (arch) => `__${arch}_sys_bpf`,
)

function wantedBy(object: BpfObject, { programs, structOps, calls }: Requirements): WantedType[] {
  return [
    ...ENUMS.map((name): WantedType => ({ kind: 'ENUM', name })),
    ...(calls.some((one) => 'atomic' in one.calls)
      ? [OLD_ATOMIC, ATOMIC].map((name): WantedType => ({ kind: 'FUNC', name }))
      : []),
    ...programs.flatMap(({ target }) => {
      if (!target) return []
      const others = target.kind === 'TYPEDEF' ? TRACEPOINTS : []
      return [target, ...others.map((name): WantedType => ({ kind: 'TYPEDEF', name }))]
    }),
    ...structOps.flatMap((name): WantedType[] => [
      { kind: 'STRUCT', name },
      { kind: 'STRUCT', name: `bpf_struct_ops_${name}` },
    ]),
    ...object.externs.flatMap(({ kind, name }): WantedType[] => {
      if (kind === 'kconfig') {
        const isWrapper = name === 'LINUX_HAS_SYSCALL_WRAPPER'
        return isWrapper ? WRAPPED_BPF.map((wrapped) => ({ kind: 'FUNC', name: wrapped })) : []
      }
      if (kind === 'kfunc') return [{ kind: 'FUNC', name: withoutFlavour(name) }]
      return [
        { kind: 'VAR', name },
        { kind: 'FUNC', name },
      ]
    }),
  ]
}

/** A name in bytes, and the kinds of the types that are wanted under it. */
interface WantedName {
  readonly name: string
  readonly bytes: Uint8Array
  readonly kinds: Set<number>
}

/** Finds types by name. */
export class SymbolSearch {
  readonly #kinds = new Set<number>()
  readonly #byHead = new Map<number, WantedName[]>()

  constructor(wanted: readonly WantedType[]) {
    const byName = new Map<string, WantedName>()
    for (const { kind, name } of wanted) {
      const bytes = encodeText(name)
      if (bytes.length === 0) continue
      const head = bytes[0]! | ((bytes[1] ?? 0) << 8)
      this.#kinds.add(KIND[kind])
      const known = byName.get(name)
      if (known) {
        known.kinds.add(KIND[kind])
        continue
      }
      const one = { name, bytes, kinds: new Set([KIND[kind]]) }
      byName.set(name, one)
      this.#byHead.set(head, [...(this.#byHead.get(head) ?? []), one])
    }
  }

  /** A query for these types, with a group for each of the kinds: many functions begin like one of the enums. */
  query(): NameQuery {
    const query = new NameQuery()
    for (const [i, kind] of [...this.#kinds].entries()) {
      query.addKind(kind, 1 << i)
      for (const names of this.#byHead.values())
        for (const { bytes, kinds } of names) if (kinds.has(kind)) query.addName(bytes, 1 << i)
    }
    return query
  }

  /** The search for all that an object asks of a kernel. */
  static of(object: BpfObject, requirements: Requirements): SymbolSearch {
    return new SymbolSearch(wantedBy(object, requirements))
  }

  /** The wanted types among these ids: the key `KIND NAME`, and the id. */
  *among(btf: TypeSource, ids: readonly number[]): Generator<[key: string, id: number]> {
    for (const id of ids) {
      const kind = btf.kind(id)
      if (!this.#kinds.has(kind)) continue
      const offset = btf.word(id, 0)
      for (const { name, bytes, kinds } of this.#byHead.get(btf.head(offset)) ?? []) {
        if (kinds.has(kind) && btf.stringIs(offset, bytes)) yield [`${kindName(kind)} ${name}`, id]
      }
    }
  }
}

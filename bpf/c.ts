/*
 * Prints a whole BTF as one C header, as `bpftool btf dump … format c` prints vmlinux.h: every struct, union, enum and
 * typedef, in an order that compiles, and the prototypes of the functions that BPF programs may call (kfuncs).
 *
 * C needs a type defined before it is used by value, and declared before it is used through a pointer. So before a type
 * is written, its dependencies are: the struct of a member is defined, the target of a pointer is declared, and a
 * typedef is written with as much of its target as its use needs. Each type is visited once per need, so the work is
 * linear. A type that needs its own definition is a `cycle`.
 */

import type { Btf } from './btf.ts'
import { compareBytes } from './bytes.ts'
import { Declarations } from './c-declaration.ts'
import { isForward, Names } from './c-name.ts'
import { BtfError } from './error.ts'
import { selectHeader } from './header-selection.ts'
import { KIND } from './kind.ts'
import type { BpfObject } from './object.ts'
import type { BtfType, DeclTagType, StructType } from './type.ts'

const GUARD = '__VMLINUX_H__'
const MAX_DEPTH = 1000
/** The compiler's own type, which for BPF is a pointer. The kernel's has another size on most machines. */
const BUILTIN_VA_LIST = '__builtin_va_list'
const VA_LISTS: ReadonlySet<string> = new Set([BUILTIN_VA_LIST, '__gnuc_va_list'])

export interface HeaderOptions {
  /**
   * only what these objects use: the types that their BTF names, with all members, and what those need; the enums of the
   * BPF API; the kfuncs that they call
   */
  readonly objects?: readonly BpfObject[]
}

/**
 * Prints the header in pieces, which the caller joins. With clang for BPF, accesses to its types are relocatable (CO-RE)
 * unless BPF_NO_PRESERVE_ACCESS_INDEX is defined. Errors: `cycle`, `too_large`.
 */
export function* printHeader(btf: Btf, { objects }: HeaderOptions = {}): Generator<string> {
  const selection = objects && selectHeader(btf, objects)
  yield `#ifndef ${GUARD}\n#define ${GUARD}\n\n`
  yield '#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n'
  yield '#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)\n'
  yield '#endif\n\n'
  yield MACROS
  const header = new HeaderPrinter(btf)
  for (const id of selection?.types ?? idsOf(btf)) {
    header.define(id)
    yield* header.take()
  }
  yield '\n/* BPF kfuncs */\n#ifndef BPF_NO_KFUNC_PROTOTYPES\n'
  yield* header.kfuncs(selection?.kfuncs)
  yield '#endif\n\n'
  yield '#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang attribute pop\n#endif\n\n'
  yield `#endif /* ${GUARD} */\n`
}

function* idsOf(btf: Btf): Generator<number> {
  for (let id = 1; id < btf.endId; id++) yield id
}

/** Macros that the prototypes of kfuncs need, unless bpf_helpers.h has defined them. */
const MACROS = `#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif

#ifndef __weak
#define __weak __attribute__((weak))
#endif

#ifndef __bpf_fastcall
#if __has_attribute(bpf_fastcall)
#define __bpf_fastcall __attribute__((bpf_fastcall))
#else
#define __bpf_fastcall
#endif
#endif

`

/** The part of a type that a use needs: its name, or its size and members. */
type Need = 'declared' | 'defined'

class HeaderPrinter {
  readonly #btf: Btf
  readonly #names: Names
  readonly #declarations: Declarations
  readonly #started = { declared: new Set<number>(), defined: new Set<number>() }
  readonly #finished = { declared: new Set<number>(), defined: new Set<number>() }
  readonly #forwarded = new Set<string>()
  /** typedefs and enums: both needs write them, but only once */
  readonly #written = new Set<number>()
  readonly #referenced: Set<number>
  #lines: string[] = []

  constructor(btf: Btf) {
    this.#btf = btf
    this.#names = new Names(btf)
    // the compiler has taken this name: the kernel's type gets a suffix
    this.#names.enumerator(BUILTIN_VA_LIST)
    this.#declarations = new Declarations(btf, this.#names)
    this.#referenced = referencedEnums(btf)
  }

  /** The text that was written since the last call. */
  *take(): Generator<string> {
    const lines = this.#lines
    this.#lines = []
    yield* lines
  }

  /** Writes a type that C defines on its own; other types are written where they are used. */
  define(id: number): void {
    const btf = this.#btf
    switch (btf.kind(id)) {
      case KIND.STRUCT:
      case KIND.UNION:
        if (btf.name(id) !== '') this.#visit(id, 'defined', 0)
        break
      case KIND.ENUM:
      case KIND.ENUM64:
        if (btf.name(id) !== '') this.#visit(id, 'declared', 0)
        else if (!this.#referenced.has(id)) this.#write(this.#declarations.declare(id, ''))
        break
      case KIND.TYPEDEF:
      case KIND.FWD:
        this.#visit(id, 'declared', 0)
        break
    }
  }

  /** The prototypes of the functions that pahole tagged as kfuncs, by name, after the types that are not written yet. */
  *kfuncs(wanted?: ReadonlySet<string>): Generator<string> {
    const btf = this.#btf
    const tagged = { bpf_kfunc: [] as number[], bpf_fastcall: [] as number[] }
    for (let id = 1; id < btf.endId; id++) {
      if (btf.kind(id) !== KIND.DECL_TAG || btf.kind(btf.sizeOrType(id)) !== KIND.FUNC) continue
      const { name, component } = btf.type(id) as DeclTagType
      if (component === -1 && (name === 'bpf_kfunc' || name === 'bpf_fastcall'))
        tagged[name].push(btf.sizeOrType(id))
    }
    const fast = new Set(tagged.bpf_fastcall)
    const nameOf = (id: number) => btf.stringBytes(btf.word(id, 0))
    const sorted = tagged.bpf_kfunc.sort((a, b) => compareBytes(nameOf(a), nameOf(b)))
    const all = wanted ? sorted.filter((id) => wanted.has(btf.name(id))) : sorted
    for (const id of all) this.#visit(btf.sizeOrType(id), 'declared', 0)
    yield* this.take()
    for (const id of all) {
      const call = fast.has(id) ? '__bpf_fastcall ' : ''
      yield `extern ${call}${this.#declarations.prototype(id)} __weak __ksym;\n`
    }
  }

  #visit(id: number, need: Need, depth: number): void {
    if (this.#finished[need].has(id)) return
    const type = this.#btf.type(id)
    if (this.#started[need].has(id) || depth > MAX_DEPTH) {
      throw new BtfError('cycle', `${type.kind} ${type.name} (type ${id}) contains itself`)
    }
    this.#started[need].add(id)
    this.#visitNew(type, need, depth + 1)
    this.#finished[need].add(id)
  }

  #visitNew(type: BtfType, need: Need, depth: number): void {
    switch (type.kind) {
      case 'STRUCT':
      case 'UNION':
        if (type.name === '') this.#visitMembers(type, depth)
        else if (need === 'declared') this.#forward(type)
        else this.#defineStruct(type, depth)
        break
      case 'ENUM':
      case 'ENUM64':
        this.#visitEnum(type, need, depth)
        break
      case 'FWD': {
        const definition = this.#names.definition(type.id)
        if (need === 'defined' && definition !== type.id) this.#visit(definition, need, depth)
        else this.#forward(type)
        break
      }
      case 'TYPEDEF':
        this.#visitTypedef(type.id, type.type, need, depth)
        break
      case 'PTR':
        this.#visit(type.type, 'declared', depth)
        break
      case 'ARRAY':
        this.#visit(type.type, 'defined', depth)
        break
      case 'FUNC_PROTO':
        this.#visit(type.type, 'declared', depth)
        for (const parameter of type.parameters) this.#visit(parameter.type, 'declared', depth)
        break
      case 'CONST':
      case 'VOLATILE':
      case 'RESTRICT':
      case 'TYPE_TAG':
        this.#visit(type.type, need, depth)
        break
    }
  }

  #defineStruct(type: StructType, depth: number): void {
    this.#visitMembers(type, depth)
    this.#write(this.#declarations.struct(type))
  }

  #visitMembers(type: StructType, depth: number): void {
    for (const member of type.members) this.#visit(member.type, 'defined', depth)
  }

  #visitEnum(type: BtfType & { kind: 'ENUM' | 'ENUM64' }, need: Need, depth: number): void {
    if (type.name === '') return
    const names = this.#names
    if (!isForward(this.#btf, type.id)) {
      // an enum has no dependencies, and C has no forward declaration of one
      if (this.#isNew(type.id)) this.#write(this.#declarations.enum(type))
      return
    }
    const definition = names.definition(type.id)
    if (definition !== type.id) this.#visit(definition, need, depth)
    else if (need === 'declared') this.#forwardLine(`enum ${names.tag(type.id)}`)
    else this.#write(`enum ${names.tag(type.id)} { ${names.enumerator(`${type.name}___none`)} }`)
  }

  #visitTypedef(id: number, target: number, need: Need, depth: number): void {
    const names = this.#names
    this.#visit(target, need, depth)
    // its target may have written it already, as a struct with a pointer to the typedef does
    if (!this.#isNew(id)) return
    const va = target === 0 && VA_LISTS.has(this.#btf.name(id))
    this.#write(
      va
        ? `typedef ${BUILTIN_VA_LIST} ${names.typedef(id)}`
        : `typedef ${this.#declarations.declare(target, names.typedef(id))}`,
    )
  }

  #forward(type: BtfType & { kind: 'STRUCT' | 'UNION' | 'FWD' }): void {
    const sort = type.kind === 'FWD' ? type.of : type.kind === 'STRUCT' ? 'struct' : 'union'
    // a type that is defined already needs no declaration
    if (this.#finished.defined.has(this.#names.definition(type.id))) return
    this.#forwardLine(`${sort} ${this.#names.tag(type.id)}`)
  }

  #forwardLine(line: string): void {
    if (this.#forwarded.has(line)) return
    this.#forwarded.add(line)
    this.#write(line)
  }

  #isNew(id: number): boolean {
    const isNew = !this.#written.has(id)
    this.#written.add(id)
    return isNew
  }

  #write(text: string): void {
    this.#lines.push(`${text};\n\n`)
  }
}

/** Anonymous enums that some type refers to; the others only define constants. */
function referencedEnums(btf: Btf): Set<number> {
  const referenced = new Set<number>()
  const refer = (id: number) => {
    const kind = btf.kind(id)
    if (kind === KIND.ENUM || kind === KIND.ENUM64) referenced.add(id)
  }
  for (let id = 1; id < btf.endId; id++) {
    const type = btf.type(id)
    if ('type' in type) refer(type.type)
    if (type.kind === 'STRUCT' || type.kind === 'UNION') for (const m of type.members) refer(m.type)
    if (type.kind === 'FUNC_PROTO') for (const p of type.parameters) refer(p.type)
  }
  return referenced
}

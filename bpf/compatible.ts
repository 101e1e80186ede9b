/*
 * Decides whether a kernel's type is the one that an object means: libbpf's three relations (src/relo_core.c). Callers
 * have compared the names without flavours before. Depth is limited as in libbpf. Steps are limited too, because the
 * number of paths through types can be exponential.
 */

import { sameEssence } from './flavour.ts'
import { KIND } from './kind.ts'
import { resolve } from './layout.ts'
import { RelocationError } from './relocation-error.ts'
import type { TypeSource } from './type-source.ts'

const MAX_DEPTH = 32
/** For all comparisons of one object with one kernel; real objects take some hundred steps per relocation. */
const MAX_STEPS = 20_000_000

/** Compares the object's types with the kernel's, and counts the steps. */
export class Comparison {
  readonly local: TypeSource
  readonly target: TypeSource
  #steps = 0

  constructor(local: TypeSource, target: TypeSource) {
    this.local = local
    this.target = target
  }

  /** Counts a step, or more if long names are compared. Errors: a RelocationError `too_complex`. */
  step(a?: Uint8Array, b?: Uint8Array): void {
    this.#steps += 1 + (((a?.length ?? 0) + (b?.length ?? 0)) >> 6)
    if (this.#steps > MAX_STEPS) throw new RelocationError('too_complex')
  }

  /** True if a field is compatible with another of the same name (`bpf_core_fields_are_compat`). Errors: a RelocationError. */
  fields(localId: number, targetId: number): boolean {
    const { local, target } = this
    let a = localId
    let b = targetId
    for (;;) {
      this.step()
      a = resolve(local, a)
      b = resolve(target, b)
      const kind = local.kind(a)
      if (isComposite(kind) && isComposite(target.kind(b))) return true
      if (!sameKind(kind, target.kind(b))) return false
      switch (kind) {
        case KIND.PTR:
        case KIND.FLOAT:
          return true
        case KIND.FWD:
        case KIND.ENUM:
        case KIND.ENUM64: {
          const ours = nameBytes(local, a)
          const theirs = nameBytes(target, b)
          return ours.length === 0 || theirs.length === 0 || sameEssence(ours, theirs)
        }
        case KIND.INT:
          return intOffset(local, a) === 0 && intOffset(target, b) === 0
        case KIND.ARRAY:
          a = local.word(a, 12)
          b = target.word(b, 12)
          break
        default:
          return false
      }
    }
  }

  /** True if types are compatible, for the relocations about existence, id and size (`bpf_core_types_are_compat`). Errors: a RelocationError. */
  types(localId: number, targetId: number, level = MAX_DEPTH): boolean {
    const { local, target } = this
    if (!sameKind(local.kind(localId), target.kind(targetId))) return false
    let a = localId
    let b = targetId
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      this.step()
      a = resolve(local, a)
      b = resolve(target, b)
      const kind = local.kind(a)
      if (!sameKind(kind, target.kind(b))) return false
      switch (kind) {
        case KIND.VOID:
        case KIND.STRUCT:
        case KIND.UNION:
        case KIND.ENUM:
        case KIND.ENUM64:
        case KIND.FWD:
          return true
        case KIND.INT:
          return intOffset(local, a) === 0 && intOffset(target, b) === 0
        case KIND.ARRAY:
          a = local.word(a, 12)
          b = target.word(b, 12)
          break
        case KIND.FUNC_PROTO:
          if (local.vlen(a) !== target.vlen(b)) return false
          for (let i = 0; i < local.vlen(a); i++) {
            if (level <= 0) throw new RelocationError('too_complex')
            const ours = resolve(local, parameterType(local, a, i))
            const theirs = resolve(target, parameterType(target, b, i))
            if (!this.types(ours, theirs, level - 1)) return false
          }
          a = resolve(local, local.sizeOrType(a))
          b = resolve(target, target.sizeOrType(b))
          break
        case KIND.PTR:
          a = local.sizeOrType(a)
          b = target.sizeOrType(b)
          break
        default:
          return false
      }
    }
    throw new RelocationError('too_complex')
  }

  /** True if a type has everything that the object's type has (`bpf_core_types_match`). Errors: a RelocationError. */
  match(localId: number, targetId: number, behindPointer = false, level = MAX_DEPTH): boolean {
    if (level <= 0) throw new RelocationError('too_complex')
    const { local, target } = this
    let behind = behindPointer
    let a = localId
    let b = targetId
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      a = resolve(local, a)
      b = resolve(target, b)
      const [ours, theirs] = [nameBytes(local, a), nameBytes(target, b)]
      this.step(ours, theirs)
      if (!namesMatch(ours, theirs)) return false
      const kind = local.kind(a)
      const other = target.kind(b)
      switch (kind) {
        case KIND.VOID:
          return other === kind
        case KIND.FWD:
          return this.#forwardMatches(a, b, behind)
        case KIND.ENUM:
        case KIND.ENUM64:
          return isEnum(other) && this.#enumsMatch(a, b)
        case KIND.STRUCT:
        case KIND.UNION:
          if (behind) {
            if (other === kind) return true
            return other === KIND.FWD && (kind === KIND.UNION) === target.flag(b)
          }
          return other === kind && this.#membersMatch(a, b, behind, level)
        case KIND.INT:
          return (
            other === kind &&
            local.sizeOrType(a) === target.sizeOrType(b) &&
            intSigned(local, a) === intSigned(target, b)
          )
        case KIND.PTR:
          if (other !== kind) return false
          behind = true
          a = local.sizeOrType(a)
          b = target.sizeOrType(b)
          break
        case KIND.ARRAY:
          if (other !== kind || local.word(a, 20) !== target.word(b, 20)) return false
          a = local.word(a, 12)
          b = target.word(b, 12)
          break
        case KIND.FUNC_PROTO:
          if (other !== kind || local.vlen(a) !== target.vlen(b)) return false
          for (let i = 0; i < local.vlen(a); i++) {
            const ours = parameterType(local, a, i)
            if (!this.match(ours, parameterType(target, b, i), behind, level - 1)) return false
          }
          a = local.sizeOrType(a)
          b = target.sizeOrType(b)
          break
        default:
          return false
      }
    }
    throw new RelocationError('too_complex')
  }

  #forwardMatches(a: number, b: number, behind: boolean): boolean {
    const { local, target } = this
    const kind = target.kind(b)
    if (kind === KIND.FWD) return local.flag(a) === target.flag(b)
    return behind && kind === (local.flag(a) ? KIND.UNION : KIND.STRUCT)
  }

  #enumsMatch(a: number, b: number): boolean {
    const { local, target } = this
    if (local.sizeOrType(a) !== target.sizeOrType(b) || local.vlen(a) > target.vlen(b)) return false
    for (let i = 0; i < local.vlen(a); i++) {
      if (this.enumerator(enumeratorName(local, a, i), b, namesMatch) < 0) return false
    }
    return true
  }

  /** Index of the first value of a kernel's enum whose name matches, or -1. */
  enumerator(
    name: Uint8Array,
    targetId: number,
    matches: (local: Uint8Array, target: Uint8Array) => boolean,
  ): number {
    for (let i = 0; i < this.target.vlen(targetId); i++) {
      const other = enumeratorName(this.target, targetId, i)
      this.step(name, other)
      if (matches(name, other)) return i
    }
    return -1
  }

  #membersMatch(a: number, b: number, behind: boolean, level: number): boolean {
    const { local, target } = this
    if (local.vlen(a) > target.vlen(b)) return false
    for (let i = 0; i < local.vlen(a); i++) {
      const name = local.stringBytes(local.word(a, 12 + i * 12))
      const type = local.word(a, 16 + i * 12)
      let matched = false
      for (let j = 0; j < target.vlen(b) && !matched; j++) {
        const other = target.stringBytes(target.word(b, 12 + j * 12))
        this.step(name, other)
        if (!namesMatch(name, other)) continue
        matched = this.match(type, target.word(b, 16 + j * 12), behind, level - 1)
      }
      if (!matched) return false
    }
    return true
  }
}

/** True if kinds are the same, or both enums of any width (`btf_kind_core_compat`). */
export function sameKind(a: number, b: number): boolean {
  return a === b || (isEnum(a) && isEnum(b))
}

export function isEnum(kind: number): boolean {
  return kind === KIND.ENUM || kind === KIND.ENUM64
}

export function isComposite(kind: number): boolean {
  return kind === KIND.STRUCT || kind === KIND.UNION
}

/** The name of an enum's value as bytes. */
export function enumeratorName(btf: TypeSource, id: number, index: number): Uint8Array {
  const step = btf.kind(id) === KIND.ENUM ? 8 : 12
  return btf.stringBytes(btf.word(id, 12 + index * step))
}

/** The encoding of an INT: 1 signed, 2 char, 4 bool (`BTF_INT_ENCODING`). */
export function intEncoding(btf: TypeSource, id: number): number {
  return (btf.word(id, 12) >>> 24) & 0xf
}

function intSigned(btf: TypeSource, id: number): boolean {
  return (intEncoding(btf, id) & 1) !== 0
}

function intOffset(btf: TypeSource, id: number): number {
  return (btf.word(id, 12) >>> 16) & 0xff
}

function parameterType(btf: TypeSource, id: number, index: number): number {
  return btf.word(id, 12 + index * 8 + 4)
}

function nameBytes(btf: TypeSource, id: number): Uint8Array {
  return btf.stringBytes(id === 0 ? 0 : btf.word(id, 0))
}

/** True if names are the same without flavours; an empty name matches only an empty one (`bpf_core_names_match`). */
function namesMatch(local: Uint8Array, target: Uint8Array): boolean {
  if (target.length === 0) return local.length === 0
  return sameEssence(local, target)
}

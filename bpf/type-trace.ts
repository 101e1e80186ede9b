/*
 * A reader of types that remembers the names by which it was read. An answer that it gave holds for every BTF in which
 * these names have the same identities (`name-identity.ts`), as long as the numbers of types are not part of it.
 *
 * That is so since there are two ways to a type: by its name, and by a reference of another type that was read. Types
 * without a name belong to the identity of the named type that leads to them. Should a reader have come to one in
 * another way, its names do not tell what it has read, and it has no trace.
 */
import type { Btf } from './btf.ts'
import { HEADER_SIZE, KINDS } from './kind.ts'
import { ALL_TYPES, isIdentified } from './name-identity.ts'
import { nameKey } from './name-key.ts'
import type { NameQuery } from './name-query.ts'
import type { BtfType } from './type.ts'
import type { TypeSource } from './type-source.ts'

/** Reads a BTF without a base. */
export class TypeTrace implements TypeSource {
  readonly #btf: Btf
  /** by id: 1 for types that were read */
  readonly #read: Uint8Array
  /** ids of these */
  readonly #ids: number[] = []
  /** keys of the names that were asked for */
  readonly #asked = new Set<number>([ALL_TYPES])
  /** the ids that were found, by what the query wants */
  readonly #found = new Map<string, readonly number[]>()
  /** whether types were asked for that names do not tell */
  #isLost: boolean

  constructor(btf: Btf) {
    this.#btf = btf
    this.#read = new Uint8Array(btf.endId)
    this.#isLost = btf.base !== undefined
  }

  /** Keys of all names that were read (`nameKey`); undefined if something was read that they do not tell. */
  keys(): number[] | undefined {
    if (this.#isLost) return undefined
    const btf = this.#btf
    const keys = new Set(this.#asked)
    const told = new Uint8Array(btf.endId)
    for (const id of this.#ids) {
      if (!this.#isNamed(id)) continue
      keys.add(nameKey(btf.stringBytes(btf.word(id, 0))))
      this.#tell(id, told)
    }
    return this.#ids.every((id) => told[id] === 1) ? [...keys] : undefined
  }

  /** Marks a type, and those without a name that belong to it. */
  #tell(root: number, told: Uint8Array): void {
    const pending = [root]
    for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
      if (told[id] === 1) continue
      told[id] = 1
      for (const next of referencesOf(this.#btf, id))
        if (next !== 0 && !this.#isNamed(next)) pending.push(next)
    }
  }

  #isNamed(id: number): boolean {
    return this.#btf.word(id, 0) !== 0 && isIdentified(this.#btf.kind(id))
  }

  #see(id: number): void {
    if (id === 0 || this.#read[id] === 1) return
    this.#read[id] = 1
    this.#ids.push(id)
  }

  get byteOrder(): Btf['byteOrder'] {
    return this.#btf.byteOrder
  }

  get pointerSize(): Btf['pointerSize'] {
    return this.#btf.pointerSize
  }

  /** As `Btf.idsOf`, but without the types that only have the beginning of a name. */
  idsOf(query: NameQuery): number[] {
    const text = `${[...query.names]} ${query.kinds}`
    const known = this.#found.get(text)
    if (known) return [...known]
    const btf = this.#btf
    for (const key of query.names.keys()) this.#asked.add(key)
    this.#isLost ||= query.kinds.some((groups, kind) => groups !== 0 && !isIdentified(kind))
    const ids = btf
      .idsOf(query)
      .filter((id) => query.names.has(nameKey(btf.stringBytes(btf.word(id, 0)))))
    this.#found.set(text, ids)
    return [...ids]
  }

  type(id: number): BtfType {
    this.#see(id)
    return this.#btf.type(id)
  }

  kind(id: number): number {
    this.#see(id)
    return this.#btf.kind(id)
  }

  vlen(id: number): number {
    this.#see(id)
    return this.#btf.vlen(id)
  }

  flag(id: number): boolean {
    this.#see(id)
    return this.#btf.flag(id)
  }

  name(id: number): string {
    this.#see(id)
    return this.#btf.name(id)
  }

  sizeOrType(id: number): number {
    this.#see(id)
    return this.#btf.sizeOrType(id)
  }

  word(id: number, at: number): number {
    this.#see(id)
    return this.#btf.word(id, at)
  }

  stringBytes(offset: number): Uint8Array {
    return this.#btf.stringBytes(offset)
  }

  stringIs(offset: number, bytes: Uint8Array): boolean {
    return this.#btf.stringIs(offset, bytes)
  }

  head(offset: number): number {
    return this.#btf.head(offset)
  }
}

/** The types that a record refers to. */
function* referencesOf(btf: Btf, id: number): Generator<number> {
  const { ids, element, elementIds, payload } = KINDS[btf.kind(id)]!
  for (const at of ids) yield btf.word(id, at)
  if (element === 0 || elementIds.length === 0) return
  for (let i = 0; i < btf.vlen(id); i++)
    for (const at of elementIds) yield btf.word(id, HEADER_SIZE + payload + i * element + at)
}

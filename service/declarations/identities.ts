/*
 * The identities of names (`bpf/name-identity.ts`) in an index: by them kernels share the answers about BPF objects.
 * Each distinct identity has a number. A BTF is stored as the identities in which it differs from its parent, and those
 * that it has first as a digest and the key of their name. An identity is told by 64 bits of its SHA-256 with a secret
 * that each index chooses: who makes BTF cannot make two identities that look equal.
 */
import { hash, randomBytes } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'
import { type Btf, eachIdentity } from '../../bpf/index.ts'
import { FormKeys, grown } from './keys.ts'
import { decodeNumbers, encodeNumbers } from './stored.ts'

const SECRET = 16

/** Stores the secret of a new index. */
export const storeSecret = (database: DatabaseSync): unknown =>
  database.prepare("INSERT INTO meta (name, value) VALUES ('secret', ?)").run(randomBytes(SECRET))

/** The identities of a BTF as they are stored. */
interface IdentityRow {
  btf: number
  /** of the parent; null for none */
  parent: number | null
  /** keys of the names of new identities */
  keys: Int32Array
  /** both halves of the digests of new identities */
  digests: Int32Array
  /** numbers of the identities that it has and its parent has not, or the reverse */
  changed: Uint8Array
}

/** Reads the identities of all BTFs, parents first. BTF that has none is left out. Errors: those of SQLite. */
function* rowsOf(database: DatabaseSync): Generator<IdentityRow> {
  for (const row of database
    .prepare(
      'SELECT btf, parent, keys, digests, changed FROM identities JOIN btfs ON number = btf ORDER BY btf',
    )
    .iterate())
    yield {
      btf: row.btf as number,
      parent: row.parent as number | null,
      keys: wordsIn(row.keys as Uint8Array),
      digests: wordsIn(row.digests as Uint8Array),
      changed: row.changed as Uint8Array,
    }
}

const wordsIn = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.slice().buffer)

const bytesOf = (words: readonly number[]): Buffer => Buffer.from(Int32Array.from(words).buffer)

/** Takes up the identities of BTF. Errors of all methods: those of SQLite and zlib. */
export class IdentityWriter {
  readonly #database: DatabaseSync
  readonly #numbers = new FormKeys()
  /** the secret, with room for an identity behind it */
  #hashed = Buffer.alloc(1 << 20)
  /** the BTF that was taken up last, and by number 1 for its identities */
  #last: { btf: number; has: Uint8Array } | undefined

  /** Reads what the index has. */
  constructor(database: DatabaseSync) {
    this.#database = database
    const found = database.prepare("SELECT value FROM meta WHERE name = 'secret'").get()
    if (!(found?.value instanceof Uint8Array)) throw new TypeError('the index has no secret')
    this.#hashed.set(found.value)
    for (const { digests } of rowsOf(database))
      for (let i = 0; i < digests.length; i += 2) this.#number(digests[i]!, digests[i + 1]!)
  }

  /** Takes up a BTF, whose parent has been taken up. BTF that has no identities is left out. */
  add(btf: Btf, number: number, parent: number | undefined): void {
    const all: { key: number; low: number; high: number }[] = []
    const isWhole = eachIdentity(btf, (key, identity) => {
      const digest = this.#digest(identity)
      all.push({ key, low: wordAt(digest, 0), high: wordAt(digest, 4) })
    })
    if (!isWhole) return
    const before = this.#identitiesOf(parent)
    const known = this.#numbers.size
    const numbers = all.map(({ low, high }) => this.#number(low, high))
    const added = all.filter((_, i) => numbers[i]! >= known)
    const has = new Uint8Array(this.#numbers.size)
    for (const one of numbers) has[one] = 1
    const changed: number[] = []
    for (let i = 0; i < has.length; i++) if (has[i] !== (before[i] ?? 0)) changed.push(i)
    this.#database
      .prepare('INSERT INTO identities (btf, keys, digests, changed) VALUES (?, ?, ?, ?)')
      .run(
        ...[number, bytesOf(added.map(({ key }) => key))],
        ...[bytesOf(added.flatMap(({ low, high }) => [low, high])), encodeNumbers(changed)],
      )
    this.#last = { btf: number, has }
  }

  /** The number of an identity; a new one if it is not known. */
  #number(low: number, high: number): number {
    const known = this.#numbers.find(low, high)
    if (known >= 0) return known
    const number = this.#numbers.size
    this.#numbers.add(low, high, number)
    return number
  }

  #digest(identity: Uint8Array): string {
    const length = SECRET + identity.length
    if (length > this.#hashed.length)
      this.#hashed = Buffer.concat([this.#hashed.subarray(0, SECRET)], 2 * length)
    this.#hashed.set(identity, SECRET)
    return hash('sha256', this.#hashed.subarray(0, length), 'binary')
  }

  /** By number: 1 for the identities of a BTF. */
  #identitiesOf(btf: number | undefined): Uint8Array {
    if (btf === undefined) return new Uint8Array(0)
    if (this.#last?.btf === btf) return this.#last.has
    const has = new Uint8Array(this.#numbers.size)
    const select = this.#database.prepare(
      'SELECT changed, parent FROM identities JOIN btfs ON number = btf WHERE btf = ?',
    )
    for (let at: number | null = btf; at !== null; ) {
      const row = select.get(at) as { changed: Uint8Array; parent: number | null } | undefined
      if (!row) break
      for (const one of decodeNumbers(row.changed)) has[one]! ^= 1
      // a parent comes before its children, so no damage makes this endless
      if (row.parent !== null && row.parent >= at) throw new TypeError('a BTF has no parent')
      at = row.parent
    }
    return has
  }
}

/** A word of a digest as a binary string. */
const wordAt = (digest: string, at: number): number =>
  digest.charCodeAt(at) |
  (digest.charCodeAt(at + 1) << 8) |
  (digest.charCodeAt(at + 2) << 16) |
  (digest.charCodeAt(at + 3) << 24)

/** Bits of a key that choose a list. */
const LIST_BITS = 16

/** Tells which BTFs of an index have the same identities of names. */
export class IdentityReader {
  /** by BTF: its parent, -1 for none; -2 for BTF without identities */
  readonly #parents: Int32Array
  /** the identities of each list, linked: the first, then by identity the next; 0 for none, else one more than it */
  readonly #first = new Int32Array(1 << LIST_BITS)
  #next = new Int32Array(1 << 17)
  /** by identity: the key of its name */
  #keys = new Int32Array(1 << 17)
  /** by identity: where the BTFs begin that differ in it from their parents; these BTFs */
  readonly #starts: Int32Array
  readonly #changes: Int32Array

  /** Reads all identities of an index with `btfs` BTFs. Errors: those of SQLite and zlib. */
  constructor(database: DatabaseSync, btfs: number) {
    this.#parents = new Int32Array(btfs).fill(NO_IDENTITIES)
    const changed: { btf: number; identities: Int32Array }[] = []
    let count = 0
    for (const { btf, parent, keys, changed: packed } of rowsOf(database)) {
      for (const key of keys) this.#addKey(count++, key)
      this.#parents[btf] =
        parent !== null && this.#parents[parent]! >= NO_PARENT ? parent : NO_PARENT
      changed.push({ btf, identities: decodeNumbers(packed) })
    }
    this.#starts = new Int32Array(count + 1)
    for (const { identities } of changed) for (const one of identities) this.#starts[one + 1]!++
    for (let i = 0; i < count; i++) this.#starts[i + 1]! += this.#starts[i]!
    this.#changes = new Int32Array(this.#starts[count]!)
    const ends = this.#starts.slice()
    for (const { btf, identities } of changed)
      for (const one of identities) this.#changes[ends[one]!++] = btf
  }

  #addKey(identity: number, key: number): void {
    if (identity === this.#keys.length) {
      this.#keys = grown(this.#keys, identity * 2)
      this.#next = grown(this.#next, identity * 2)
    }
    this.#keys[identity] = key
    const list = key >>> (32 - LIST_BITS)
    this.#next[identity] = this.#first[list]!
    this.#first[list] = identity + 1
  }

  /** The BTFs, by number, in which names with these keys have the same identities as in one, with it. None if it has none. */
  alike(btf: number, keys: readonly number[]): number[] {
    const parents = this.#parents
    if (!(parents[btf]! >= NO_PARENT)) return []
    const differs = new Uint8Array(parents.length)
    const has = new Uint8Array(parents.length)
    for (const key of keys) {
      for (let at = this.#first[key >>> (32 - LIST_BITS)]!; at !== 0; at = this.#next[at - 1]!) {
        if (this.#keys[at - 1] !== key) continue
        this.#holders(at - 1, has)
        for (let i = 0; i < has.length; i++) differs[i]! |= has[i]! ^ has[btf]!
      }
    }
    return [...parents.keys()].filter((i) => parents[i]! >= NO_PARENT && differs[i] === 0)
  }

  /** Writes for each BTF 1 if it has an identity. */
  #holders(identity: number, has: Uint8Array): void {
    let at = this.#starts[identity]!
    const end = this.#starts[identity + 1]!
    for (let btf = 0; btf < has.length; btf++) {
      const parent = this.#parents[btf]!
      const changes = at < end && this.#changes[at] === btf
      if (changes) at++
      has[btf] = (parent < 0 ? 0 : has[parent]!) ^ (changes ? 1 : 0)
    }
  }
}

const NO_PARENT = -1
const NO_IDENTITIES = -2

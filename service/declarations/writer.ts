/*
 * Takes BTF up into an index, one at a time. Most forms of a kernel are known by their keys, so only the declarations
 * that differ from its parent's are read and written. Each BTF is one transaction: a writer that is ended leaves a whole
 * index. Writers in other processes are waited for; what they have taken up is skipped.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { BtfError, DECLARATION_KINDS, DeclaredForms, parseBtf } from '../../bpf/index.ts'
import type { BuildRecord, KernelName } from '../../storage/index.ts'
import { onFile, openToWrite, removeIndex, UnusableIndex } from './database.ts'
import { IdentityWriter } from './identities.ts'
import { FormKeys, grown } from './keys.ts'
import {
  BLOCK,
  type Block,
  contentOf,
  declarationIn,
  ElementIndexes,
  newDeclaration,
  packBlock,
  packNumbers,
  type StoredDeclaration,
  unpackBlock,
  unpackNumbers,
} from './stored.ts'
import { formsOf, type PlacedBtf, parentOf } from './tree.ts'

/** Limits of what is hostile. A kernel has 75,000 declarations, and at most 11 types of one name. */
const MAX_DECLARATIONS = 1_000_000
const MAX_NAME = 512
const MAX_FORMS_OF_NAME = 64
/** Blocks in memory. */
const MAX_KEPT = 512

/** A kernel of the catalog that has BTF. */
export interface CatalogKernel {
  /** key of its record */
  key: string
  kernel: KernelName
  build: string | null
  packageVersion: string
  sha256: string
}

export const catalogKernel = (
  key: string,
  { kernel, package: { version }, btf }: BuildRecord,
): CatalogKernel => ({
  key,
  kernel: {
    distro: kernel.distro,
    version: kernel.version,
    arch: kernel.arch,
    release: kernel.release,
  },
  build: kernel.buildId ?? null,
  packageVersion: version,
  sha256: btf!.sha256,
})

interface LoadedState {
  keys: FormKeys
  /** by form: the number of its declaration */
  declarationOf: Int32Array<ArrayBuffer>
  forms: number
  declarations: number
  btfs: number
  identities: IdentityWriter
  /** forms of the BTF that was added last */
  last: { number: number; has: Uint8Array<ArrayBuffer> } | undefined
}

/** A declaration that gets new forms. */
interface OpenDeclaration {
  declaration: StoredDeclaration
  elements: ElementIndexes
  /** numbers of its forms by their content */
  contents: Map<string, number>
}

const opening = (declaration: StoredDeclaration): OpenDeclaration => ({
  declaration,
  elements: new ElementIndexes(declaration),
  contents: new Map(declaration.forms.map((form) => [contentOf(form), form.n])),
})

/** Errors of all methods: `UnusableIndex` for a file that is damaged, which `open` then makes again; the system's. */
export class IndexWriter {
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #statements: Record<'insert' | 'find' | 'element' | 'block' | 'store', StatementSync>
  readonly #blocks = new Map<number, Block>()
  #state: LoadedState | undefined
  /** the `version` of the index that `#state` is of */
  #version = -1

  private constructor(path: string, database: DatabaseSync) {
    this.#path = path
    this.#database = database
    this.#statements = onFile(() => ({
      insert: database.prepare('INSERT INTO declarations (name, kind, id) VALUES (?, ?, ?)'),
      find: database.prepare('SELECT id FROM declarations WHERE name = ? AND kind = ?'),
      element: database.prepare('INSERT OR IGNORE INTO elements (name, declaration) VALUES (?, ?)'),
      block: database.prepare('SELECT declarations FROM blocks WHERE number = ?'),
      store: database.prepare('INSERT OR REPLACE INTO blocks (number, declarations) VALUES (?, ?)'),
    }))
  }

  /** Opens an index, or makes an empty one: also with `rebuild`, or where the file is of no use. */
  static open(path: string, { rebuild = false } = {}): IndexWriter {
    if (rebuild) removeIndex(path)
    return new IndexWriter(path, openToWrite(path))
  }

  /** Closes the file, and makes it as small as it can be if much of it is unused. */
  close(): void {
    const pragma = (name: string) =>
      Object.values(this.#database.prepare(`PRAGMA ${name}`).get() as Record<string, number>)[0]!
    try {
      if (pragma('freelist_count') * 8 > pragma('page_count')) this.#database.exec('VACUUM')
    } catch {
      // another process uses the file, or it is damaged: the next one that opens it sees that
    }
    this.#database.close()
  }

  get path(): string {
    return this.#path
  }

  /** Tells whether the index has a BTF, or has found that it cannot be taken up. */
  has(sha256: string): boolean {
    return onFile(() => this.#number(sha256) !== undefined)
  }

  /** The digests that the index has, of BTF that no kernel has any more, too. */
  digests(): Set<string> {
    return onFile(() => {
      const rows = this.#database.prepare('SELECT sha256 FROM btfs').all()
      return new Set(rows.map(({ sha256 }) => sha256 as string))
    })
  }

  /**
   * Replaces the list of kernels. Their BTF is added before; kernels with BTF that is not there are left out. `whole` says
   * that nothing more is to come: from then on the index answers.
   */
  setKernels(kernels: Iterable<CatalogKernel>, { whole = false } = {}): void {
    this.#transaction(() => {
      const wasWhole =
        this.#database.prepare("SELECT 1 FROM meta WHERE name = 'whole'").get() !== undefined
      if (whole)
        this.#database
          .prepare('INSERT OR REPLACE INTO meta (name, value) VALUES (?, 1)')
          .run('whole')
      const database = this.#database
      const numbers = new Map<string, number>()
      for (const { sha256, number } of database
        .prepare('SELECT sha256, number FROM btfs WHERE failure IS NULL')
        .all())
        numbers.set(sha256 as string, number as number)
      const old = new Map(
        database
          .prepare('SELECT key, btf, package FROM kernels')
          .all()
          .map((row) => [row.key as string, row]),
      )
      const store = database.prepare(
        'INSERT OR REPLACE INTO kernels (key, btf, distro, version, arch, release, build, package) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      )
      let changed = false
      for (const { key, kernel, build, packageVersion, sha256 } of kernels) {
        const number = numbers.get(sha256)
        if (number === undefined) continue
        const known = old.get(key)
        old.delete(key)
        if (known?.btf === number && known?.package === packageVersion) continue
        const { distro, version, arch, release } = kernel
        store.run(key, number, distro, version, arch, release, build, packageVersion)
        changed = true
      }
      const remove = database.prepare('DELETE FROM kernels WHERE key = ?')
      for (const key of old.keys()) remove.run(key)
      return changed || old.size > 0 || (whole && !wasWhole)
    })
  }

  /** Takes up the BTF of a kernel, and the kernel. Returns why it cannot be taken up; the index remembers it. */
  add(raw: Uint8Array, kernel: CatalogKernel): string | undefined {
    let failure: string | undefined
    this.#transaction(() => {
      if (this.#number(kernel.sha256) !== undefined) return false
      const state = this.#load()
      this.#database.exec('SAVEPOINT before')
      try {
        this.#take(raw, kernel, state)
      } catch (error) {
        if (!(error instanceof BtfError)) throw error
        this.#database.exec('ROLLBACK TO before')
        failure = `${error.code}: ${error.message}`
        this.#state = undefined
        this.#blocks.clear()
        this.#insertFailure(kernel.sha256, failure)
        return true
      }
      this.#database
        .prepare(
          'INSERT OR REPLACE INTO kernels (key, btf, distro, version, arch, release, build, package) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
        )
        .run(
          ...[kernel.key, state.btfs - 1],
          ...(['distro', 'version', 'arch', 'release'] as const).map((part) => kernel.kernel[part]),
          ...[kernel.build, kernel.packageVersion],
        )
      return true
    })
    return failure
  }

  /** Remembers that a BTF cannot be taken up. */
  fail(sha256: string, message: string): void {
    this.#transaction(() => {
      if (this.#number(sha256) !== undefined) return false
      this.#state = undefined
      this.#insertFailure(sha256, message)
      return true
    })
  }

  #insertFailure(sha256: string, message: string): void {
    this.#database
      .prepare(
        'INSERT INTO btfs (number, sha256, failure) SELECT coalesce(max(number) + 1, 0), ?, ? FROM btfs',
      )
      .run(sha256, message)
  }

  #number(sha256: string): number | undefined {
    const row = this.#database.prepare('SELECT number FROM btfs WHERE sha256 = ?').get(sha256)
    return row?.number as number | undefined
  }

  /** Does the work in a transaction; work that changed nothing does not count as a version of the index. */
  #transaction(work: () => boolean): void {
    onFile(() => {
      const database = this.#database
      database.exec('BEGIN IMMEDIATE')
      try {
        const version = this.#readVersion()
        if (version !== this.#version) {
          this.#state = undefined
          this.#blocks.clear()
        }
        if (work()) {
          this.#version = version + 1
          database
            .prepare('INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?), (?, ?)')
            .run('version', this.#version, 'updatedAt', new Date().toISOString())
        } else this.#version = version
        database.exec('COMMIT')
      } catch (error) {
        this.#version = -1
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    })
  }

  #readVersion(): number {
    const row = this.#database.prepare("SELECT value FROM meta WHERE name = 'version'").get()
    return (row?.value as number | undefined) ?? 0
  }

  #load(): LoadedState {
    if (this.#state) return this.#state
    const keys = new FormKeys()
    let declarationOf = new Int32Array(1 << 17)
    let [forms, declarations] = [0, 0]
    for (const row of this.#database
      .prepare('SELECT keys, forms, declarations FROM keys ORDER BY btf')
      .iterate()) {
      const halves = unpackKeys(row.keys as Uint8Array)
      const numbers = unpackNumbers(row.forms as Uint8Array)
      const owners = unpackNumbers(row.declarations as Uint8Array)
      for (const [i, form] of numbers.entries()) {
        keys.add(halves[2 * i]!, halves[2 * i + 1]!, form)
        while (form >= declarationOf.length)
          declarationOf = grown(declarationOf, declarationOf.length * 2)
        declarationOf[form] = owners[i]!
        if (form >= forms) forms = form + 1
        if (owners[i]! >= declarations) declarations = owners[i]! + 1
      }
    }
    const { btfs } = this.#database
      .prepare('SELECT coalesce(max(number) + 1, 0) AS btfs FROM btfs')
      .get() as { btfs: number }
    const identities = new IdentityWriter(this.#database)
    const counts = { forms, declarations, btfs }
    this.#state = { keys, declarationOf, ...counts, identities, last: undefined }
    return this.#state
  }

  #take(raw: Uint8Array, { kernel, sha256 }: CatalogKernel, state: LoadedState): void {
    const btf = parseBtf(raw)
    const declared = new DeclaredForms(btf)
    if (declared.length > MAX_DECLARATIONS)
      throw new BtfError('too_large', `it has more than ${MAX_DECLARATIONS} declarations`)
    const [number, old] = [state.btfs, state.forms]
    const present = this.#formsIn(declared, state)
    const parent = parentOf(kernel, this.#placed())
    const before = this.#formsOf(parent?.number, state)
    const [came, went]: [number[], number[]] = [[], []]
    for (let form = 0; form < state.forms; form++) {
      const [was, is] = [before[form] ?? 0, present[form]!]
      if (is > was) came.push(form)
      else if (was > is) went.push(form)
    }
    // a new form says itself that it came
    const returned = came.filter((form) => form < old)
    this.#note(number, returned, 'came', state)
    this.#note(number, went, 'went', state)
    this.#flush()
    this.#database
      .prepare('INSERT INTO btfs (number, sha256, parent, came, went) VALUES (?, ?, ?, ?, ?)')
      .run(
        ...[number, sha256, parent?.number ?? null],
        ...[came, went].map((forms) => (forms.length > 0 ? packNumbers(forms) : null)),
      )
    state.identities.add(btf, number, parent?.number)
    state.btfs = number + 1
    state.last = { number, has: present }
  }

  /** The forms of a BTF by number; new ones are added to their declarations. */
  #formsIn(declared: DeclaredForms, state: LoadedState): Uint8Array<ArrayBuffer> {
    const unknown: number[] = []
    const known: number[] = []
    for (let i = 0; i < declared.length; i++) {
      const form = state.keys.find(declared.low(i), declared.high(i))
      if (form < 0) unknown.push(i)
      else known.push(form)
    }
    const added = this.#addForms(declared, unknown, state)
    const present = new Uint8Array(state.forms)
    for (const form of known) present[form] = 1
    for (const form of added) present[form] = 1
    return present
  }

  #addForms(declared: DeclaredForms, unknown: readonly number[], state: LoadedState): number[] {
    const keys: number[] = []
    const forms: number[] = []
    const counts = new Map<number, number>()
    const open = new Map<number, OpenDeclaration>()
    for (const i of unknown) {
      const [low, high] = [declared.low(i), declared.high(i)]
      if (state.keys.find(low, high) >= 0) continue // a type that this BTF has twice
      const name = declared.name(i)
      if (name.length > MAX_NAME) continue
      const id = this.#declaration(name, DECLARATION_KINDS.indexOf(declared.kind(i)), state)
      const count = (counts.get(id) ?? 0) + 1
      counts.set(id, count)
      if (count > MAX_FORMS_OF_NAME) continue
      const opened = open.get(id) ?? opening(this.#get(id))
      open.set(id, opened)
      const form = opened.elements.encode(declared.form(i), state.btfs)
      const content = contentOf(form)
      let n = opened.contents.get(content)
      if (n === undefined) {
        n = state.forms++
        form.n = n
        if (n === state.declarationOf.length)
          state.declarationOf = grown(state.declarationOf, n * 2)
        state.declarationOf[n] = id
        opened.declaration.forms.push(form)
        opened.contents.set(content, n)
      }
      state.keys.add(low, high, n)
      keys.push(low, high)
      forms.push(n)
      if (this.#blocks.size > MAX_KEPT) {
        this.#addElements(open)
        open.clear()
        this.#flush()
      }
    }
    this.#addElements(open)
    if (forms.length > 0)
      this.#database
        .prepare('INSERT INTO keys (btf, keys, forms, declarations) VALUES (?, ?, ?, ?)')
        .run(
          ...[state.btfs, packKeys(keys), packNumbers(forms)],
          packNumbers(forms.map((form) => state.declarationOf[form]!)),
        )
    return forms
  }

  #addElements(open: ReadonlyMap<number, OpenDeclaration>): void {
    for (const [id, { elements }] of open)
      for (const name of elements.added)
        if (name !== '' && name.length <= MAX_NAME) this.#statements.element.run(name, id)
  }

  #declaration(name: string, kind: number, state: LoadedState): number {
    const known = this.#statements.find.get(name, kind)
    if (known) return known.id as number
    const id = state.declarations++
    this.#statements.insert.run(name, kind, id)
    const block = this.#block(Math.floor(id / BLOCK))
    block[id % BLOCK] = newDeclaration(DECLARATION_KINDS[kind]!, name)
    return id
  }

  /** Adds the number of a BTF to forms that came or went in it. */
  #note(number: number, forms: readonly number[], what: 'came' | 'went', state: LoadedState): void {
    for (const form of forms) {
      const { forms: all } = this.#get(state.declarationOf[form]!)
      const stored = all.find(({ n }) => n === form)
      if (!stored) throw new UnusableIndex(`form ${form} is not in its declaration`)
      stored[what].push(number)
      if (this.#blocks.size > MAX_KEPT) this.#flush()
    }
  }

  #get(id: number): StoredDeclaration {
    const declaration = declarationIn(this.#block(Math.floor(id / BLOCK)), id % BLOCK)
    if (!declaration) throw new UnusableIndex(`declaration ${id} is not in its block`)
    return declaration
  }

  readonly #touched = new Set<number>()

  /** The declarations of a block, to be changed. */
  #block(number: number): Block {
    this.#touched.add(number)
    const kept = this.#blocks.get(number)
    if (kept) return kept
    const row = this.#statements.block.get(number)
    const block = row ? unpackBlock(row.declarations as Uint8Array) : []
    this.#blocks.set(number, block)
    return block
  }

  /** Writes the blocks that this BTF has touched. */
  #flush(): void {
    for (const number of this.#touched)
      this.#statements.store.run(number, packBlock(this.#blocks.get(number)!))
    this.#touched.clear()
    if (this.#blocks.size > MAX_KEPT) this.#blocks.clear()
  }

  #formsOf(number: number | undefined, state: LoadedState): Uint8Array {
    if (number === undefined) return new Uint8Array(0)
    if (state.last?.number === number) return state.last.has
    return formsOf(this.#database, number, state.forms)
  }

  /** The BTFs that can be parents, each with one of its kernels. */
  *#placed(): Generator<PlacedBtf> {
    for (const row of this.#database
      .prepare('SELECT btf, distro, version, arch, release FROM kernels')
      .iterate()) {
      const { btf, distro, version, arch, release } = row as Record<string, string | number>
      yield {
        number: btf as number,
        kernel: { distro, version, arch, release } as PlacedBtf['kernel'],
      }
    }
  }
}

const packKeys = (halves: readonly number[]): Buffer => {
  const words = new Int32Array(halves)
  return Buffer.from(words.buffer)
}

function unpackKeys(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.slice().buffer)
}

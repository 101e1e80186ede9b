/*
 * The questions that an index answers. All methods are synchronous and read one version of the index, whatever writers do
 * meanwhile. Names are exact. A method gives undefined for what the index does not have.
 */

import { statSync } from 'node:fs'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { LRUCache } from 'lru-cache'
import { DECLARATION_KINDS, type DeclarationKind } from '../../bpf/index.ts'
import { compareVersions, type KernelName } from '../../storage/index.ts'
import type {
  DeclarationHistory,
  DeclaredForm,
  DeclaredIn,
  DiffAnswer,
  FormHolders,
  IndexedKernel,
  IndexStats,
  MemberHistory,
  Neighbours,
  SearchAnswer,
  SeriesSummary,
} from './answers.ts'
import { onFile, openToRead, UnusableIndex } from './database.ts'
import { type ComparedBtfs, compareBtfs, type DiffFilter, diffPageOf } from './diff.ts'
import { formsIn, heldForms, historyOf, memberHistoryOf, pageOfRuns, plain } from './history.ts'
import { IdentityReader } from './identities.ts'
import { type IndexedKernels, isNamed, type OrderedSeries, readKernels } from './order.ts'
import { type SearchQuery, searchIn } from './search.ts'
import {
  BLOCK,
  declarationIn,
  formIdOf,
  type StoredDeclaration,
  unpackBlock,
  unpackNumbers,
} from './stored.ts'

/** A kernel by name, or one of its builds by the SHA-256 of its BTF. */
export interface KernelQuery extends KernelName {
  sha256?: string | undefined
}

/** One page of a list. */
export interface PageQuery {
  limit?: number | undefined
  /** `next` of the page before */
  cursor?: string | undefined
}

/** Comparisons of two BTFs that are kept, for their pages and filters; one has some megabytes. */
const COMPARED = 2
/** Entries of a page. */
const PAGE = 100
/** The highest place that a cursor can have. */
const MAX_SKIP = 1_000_000

/** Errors of all methods: `UnusableIndex` for a file that is damaged or gone. */
export class IndexReader {
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #version: StatementSync
  readonly #block: StatementSync
  #kernels: { version: number; all: IndexedKernels } | undefined
  #stats:
    | { version: number; counts: Pick<IndexStats, 'declarations' | 'forms' | 'failed'> }
    | undefined
  #owners: { version: number; all: Int32Array } | undefined
  #identities: { version: number; all: IdentityReader } | undefined
  readonly #compared = new LRUCache<string, ComparedBtfs>({ max: COMPARED })

  /** Errors: `UnusableIndex`. */
  constructor(path: string) {
    this.#path = path
    this.#database = openToRead(path)
    const prepare = (sql: string) => onFile(() => this.#database.prepare(sql))
    this.#version = prepare("SELECT value FROM meta WHERE name = 'version'")
    this.#block = prepare('SELECT declarations FROM blocks WHERE number = ?')
  }

  close(): void {
    this.#database.close()
  }

  /** Tells whether the index was once in line with its catalog. Before that, its answers would mislead. */
  isWhole(): boolean {
    return this.#read(
      () => this.#database.prepare("SELECT 1 FROM meta WHERE name = 'whole'").get() !== undefined,
    )
  }

  /**
   * The SHA-256 of each BTF that answers as one does, by the keys of the names that the answer has read (`TypeTrace`); its
   * own too. None if the index cannot tell.
   */
  alike(sha256: string, keys: readonly number[]): string[] {
    return this.#read(({ parents }, version) => {
      const digests = this.#digests(parents.length)
      const btf = digests.indexOf(sha256)
      if (btf < 0) return []
      if (this.#identities?.version !== version)
        this.#identities = { version, all: new IdentityReader(this.#database, parents.length) }
      return this.#identities.all.alike(btf, keys).map((one) => digests[one]!)
    })
  }

  /** The SHA-256 of all BTFs, by number. */
  #digests(count: number): string[] {
    const digests = Array<string>(count)
    for (const { number, sha256 } of this.#database
      .prepare('SELECT number, sha256 FROM btfs')
      .all())
      digests[number as number] = sha256 as string
    return digests
  }

  /** What the index has. */
  stats(): IndexStats {
    return this.#read(({ series, count, parents }, version) => {
      if (this.#stats?.version !== version) this.#stats = { version, counts: this.#count() }
      const updated = this.#database
        .prepare("SELECT value FROM meta WHERE name = 'updatedAt'")
        .get()
      return {
        kernels: count,
        btfs: parents.length,
        series: series.length,
        ...this.#stats.counts,
        bytes: statSync(this.#path).size,
        ...(updated && { updatedAt: updated.value as string }),
      }
    })
  }

  #count(): Pick<IndexStats, 'declarations' | 'forms' | 'failed'> {
    const database = this.#database
    const rows = database
      .prepare('SELECT kind, count(*) AS count FROM declarations GROUP BY kind')
      .all()
    const failed = database
      .prepare(
        'SELECT sha256, failure FROM btfs WHERE failure IS NOT NULL ORDER BY number DESC LIMIT 100',
      )
      .all()
    return {
      declarations: rows.map(({ kind, count }) => ({
        kind: DECLARATION_KINDS[kind as number]!,
        count: count as number,
      })),
      forms: this.#owned().length,
      failed: failed.map(({ sha256, failure }) => ({
        sha256: sha256 as string,
        message: failure as string,
      })),
    }
  }

  /** All series, in order. */
  series(): SeriesSummary[] {
    return this.#read(({ series }) =>
      series.map(({ name, kernels }) => ({
        ...name,
        first: kernels[0]!,
        last: kernels.at(-1)!,
        kernels: kernels.length,
      })),
    )
  }

  /** The place of a kernel in its series. */
  neighbours(kernel: KernelQuery): Neighbours | undefined {
    return this.#read((all) => {
      const found = find(all, kernel)
      if (!found) return undefined
      const { series, position } = found
      const [previous, next] = [series.kernels[position - 1], series.kernels[position + 1]]
      return {
        ...{ series: series.name, kernels: series.kernels.length, position },
        ...(previous && { previous }),
        ...(next && { next }),
      }
    })
  }

  /** Kernels, types, members and functions by a text. Errors: `RangeError` for an invalid cursor. */
  search(
    text: string,
    { kinds, limit = 20, cursor }: PageQuery & { kinds?: SearchQuery['kinds'] } = {},
  ): SearchAnswer {
    const skip = skipOf(cursor)
    return this.#read((all) => {
      const { database, index } = { database: this.#database, index: this }
      const get = (id: number) => index.#get(id)
      const query = { text: text.trim(), kinds, limit: limit + 1, skip }
      const found = searchIn({ database, series: all.series, get }, query)
      return { found: found.slice(0, limit), ...nextOf(found.length > limit, skip + limit) }
    })
  }

  /**
   * The declarations of a name in a kernel, or in the newest kernel that has any; of x86_64, if one of those has. With
   * `kinds`, only those.
   */
  declared(
    name: string,
    {
      kernel,
      kinds,
    }: { kernel?: KernelQuery | undefined; kinds?: readonly DeclarationKind[] | undefined } = {},
  ): DeclaredIn | undefined {
    return this.#read((all) => {
      const held = this.#named(name, kinds).map((declaration) => heldForms(declaration, all))
      const has = (btf: number) => held.some((one) => formsIn(one, btf).length > 0)
      const found = kernel ? find(all, kernel) : newestThat(all, has)
      if (!found || !has(found.btf)) return undefined
      const declarations = held.flatMap((one) =>
        formsIn(one, found.btf).map((i): DeclaredForm => {
          const { stored, shape, kernels } = one.forms[i]!
          const { kind } = one.declaration
          return { kind, name, form: formIdOf(one.declaration, stored), kernels, ...plain(shape) }
        }),
      )
      return { kernel: found.kernel, declarations }
    })
  }

  /** The histories of all declarations of a name, in the order of kinds; with `kinds`, only those. */
  history(name: string, kinds?: readonly DeclarationKind[]): DeclarationHistory[] {
    return this.#read((all) =>
      this.#named(name, kinds).flatMap((declaration) => historyOf(declaration, all) ?? []),
    )
  }

  /** The histories of a member, or of an enumerator, of all types of a name. */
  memberHistory(name: string, member: string): MemberHistory[] {
    return this.#read((all) =>
      this.#named(name).flatMap((declaration) => memberHistoryOf(declaration, member, all) ?? []),
    )
  }

  /** A page of `history`, by runs. Errors: `RangeError` for an invalid cursor. */
  historyPage(
    name: string,
    { kinds, ...page }: PageQuery & { kinds?: readonly DeclarationKind[] | undefined } = {},
  ): { declarations: DeclarationHistory[]; next?: string } | undefined {
    const histories = this.history(name, kinds)
    if (histories.length === 0) return undefined
    const { part, next } = runsPage(histories, page)
    return { declarations: part, ...next }
  }

  /** A page of `memberHistory`, by runs. Errors: `RangeError` for an invalid cursor. */
  memberHistoryPage(
    name: string,
    member: string,
    page: PageQuery = {},
  ): { members: MemberHistory[]; next?: string } | undefined {
    const histories = this.memberHistory(name, member)
    if (histories.length === 0) return undefined
    const { part, next } = runsPage(histories, page)
    return { members: part, ...next }
  }

  /** A form by its id, and the kernels that have it. Errors: `RangeError` for an invalid cursor. */
  holders(
    name: string,
    form: string,
    { limit = PAGE, cursor }: PageQuery = {},
  ): FormHolders | undefined {
    const skip = skipOf(cursor)
    return this.#read((all) => {
      for (const declaration of this.#named(name)) {
        const found = heldForms(declaration, all).forms.find(
          ({ stored }) => formIdOf(declaration, stored) === form,
        )
        if (!found) continue
        const kernels = all.series.flatMap(({ kernels, btfs }) =>
          kernels.filter((_, i) => found.holders[btfs[i]!] === 1),
        )
        return {
          declaration: {
            kind: declaration.kind,
            name,
            form,
            kernels: kernels.length,
            ...plain(found.shape),
          },
          kernels: kernels.slice(skip, skip + limit),
          ...nextOf(kernels.length > skip + limit, skip + limit),
        }
      }
      return undefined
    })
  }

  /** What differs between two kernels, in pages. Errors: `RangeError` for an invalid cursor. */
  diff(
    from: KernelQuery,
    to: KernelQuery,
    { limit = PAGE, cursor, ...filter }: PageQuery & DiffFilter = {},
  ): DiffAnswer | undefined {
    const skip = skipOf(cursor)
    return this.#read((all, version) => {
      const [old, now] = [find(all, from), find(all, to)]
      if (!old || !now) return undefined
      const key = `${version} ${old.btf} ${now.btf}`
      const compared = this.#compared.get(key) ?? this.#compare(old.btf, now.btf, filter.name)
      if (filter.name === undefined) this.#compared.set(key, compared)
      const index = { get: (id: number) => this.#get(id) }
      const page = { ...filter, limit, skip }
      const { counts, entries, more } = diffPageOf(index, compared, page)
      return { from: old.kernel, to: now.kernel, counts, entries, ...nextOf(more, skip + limit) }
    })
  }

  #compare(old: number, now: number, name: string | undefined): ComparedBtfs {
    const index = { database: this.#database, owners: this.#owned() }
    return compareBtfs(index, old, now, name)
  }

  /** The declarations of a name, in the order of kinds. */
  #named(name: string, kinds?: readonly DeclarationKind[]): StoredDeclaration[] {
    return this.#database
      .prepare('SELECT kind, id FROM declarations WHERE name = ? ORDER BY kind')
      .all(name)
      .filter(
        ({ kind }) => kinds === undefined || kinds.includes(DECLARATION_KINDS[kind as number]!),
      )
      .map(({ id }) => this.#get(id as number))
  }

  #get(id: number): StoredDeclaration {
    const row = this.#block.get(Math.floor(id / BLOCK))
    const declaration =
      row && declarationIn(unpackBlock(row.declarations as Uint8Array), id % BLOCK)
    if (!declaration) throw new UnusableIndex(`declaration ${id} is not in its block`)
    return declaration
  }

  /** By form: the number of its declaration. */
  #owned(): Int32Array {
    const version = this.#readVersion()
    if (this.#owners?.version === version) return this.#owners.all
    const rows = this.#database.prepare('SELECT forms, declarations FROM keys ORDER BY btf').all()
    const lists = rows.map(({ forms, declarations }) => ({
      forms: unpackNumbers(forms as Uint8Array),
      owners: unpackNumbers(declarations as Uint8Array),
    }))
    const count = lists.reduce(
      (most, { forms }) => forms.reduce((a, b) => Math.max(a, b + 1), most),
      0,
    )
    const all = new Int32Array(count)
    for (const { forms, owners } of lists)
      for (const [i, form] of forms.entries()) all[form] = owners[i]!
    this.#owners = { version, all }
    return all
  }

  #readVersion(): number {
    return (this.#version.get()?.value as number | undefined) ?? 0
  }

  /** Reads one version of the index. */
  #read<T>(work: (all: IndexedKernels, version: number) => T): T {
    return onFile(() => {
      const database = this.#database
      database.exec('BEGIN')
      try {
        const version = this.#readVersion()
        if (this.#kernels?.version !== version)
          this.#kernels = { version, all: readKernels(database) }
        return work(this.#kernels.all, version)
      } finally {
        database.exec('COMMIT')
      }
    })
  }
}

interface KernelPlace {
  series: OrderedSeries
  position: number
  kernel: IndexedKernel
  btf: number
}

const placeOf = (series: OrderedSeries, position: number): KernelPlace => ({
  ...{ series, position },
  kernel: series.kernels[position]!,
  btf: series.btfs[position]!,
})

/** The build of a kernel: the one with the digest, or the newest. */
function find(
  { series }: IndexedKernels,
  { sha256, ...name }: KernelQuery,
): KernelPlace | undefined {
  for (const one of series) {
    const isIt = (kernel: IndexedKernel) =>
      isNamed(kernel, name) && (sha256 === undefined || kernel.sha256 === sha256)
    const position = one.kernels.findLastIndex(isIt)
    if (position >= 0) return placeOf(one, position)
  }
  return undefined
}

/** The newest kernel with a BTF that is wanted; of x86_64, if one of those is. */
function newestThat(
  { series }: IndexedKernels,
  wants: (btf: number) => boolean,
): KernelPlace | undefined {
  let best: KernelPlace | undefined
  for (const one of series) {
    const position = one.btfs.findLastIndex(wants)
    if (position < 0) continue
    const place = placeOf(one, position)
    if (!best || isBefore(best.kernel, place.kernel)) best = place
  }
  return best
}

function isBefore(a: IndexedKernel, b: IndexedKernel): boolean {
  const [x, y] = [a, b].map(({ arch }) => (arch === 'x86_64' ? 1 : 0))
  return x !== y ? x! < y! : compareVersions(a.release, b.release) < 0
}

function runsPage<H extends DeclarationHistory | MemberHistory>(
  histories: readonly H[],
  { limit = PAGE, cursor }: PageQuery,
): { part: H[]; next: { next?: string } } {
  const skip = skipOf(cursor)
  const { part, more } = pageOfRuns(histories, { skip, limit })
  return { part, next: nextOf(more, skip + limit) }
}

const nextOf = (more: boolean, skip: number) => (more ? { next: String(skip) } : {})

function skipOf(cursor: string | undefined): number {
  if (cursor === undefined) return 0
  if (/^\d{1,7}$/.test(cursor) && Number(cursor) <= MAX_SKIP) return Number(cursor)
  throw new RangeError(
    `invalid cursor "${cursor.slice(0, 20)}": expected \`next\` of the page before`,
  )
}

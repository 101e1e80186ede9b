/*
 * /search: one box for anything. A text is tried as a kernel's name, a release, a build-id or digest, then as the name of
 * a type, a member or a function. People also paste the whole output of `uname -a`, a C declaration or `a->b`.
 */
import type { TypeName } from '../../bpf/index.ts'
import type { Catalog } from '../../storage/index.ts'
import type { Found, FoundKind } from '../declarations/answers.ts'
import { nameOf, parseName } from '../kernel/name.ts'
import { findSimilar } from '../kernel/similar.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import { type ListedKernel, listedKernel } from './kernels-page.ts'
import { anchorOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import { functionUrl, kernelUrl, memberUrl, typeUrl } from './url.ts'

/** Kernels that a result lists. */
const MAX_KERNELS = 30

export interface SearchedKernels {
  readonly rows: readonly KernelRow[]
  /** whether the text names them, rather than being a part of their names */
  readonly exact: boolean
}

/** Finds kernels by a name, release, build-id or digest; or by a part of the release. */
export function searchKernels(
  catalog: Pick<Catalog, 'findBy'>,
  table: KernelTable,
  text: string,
): SearchedKernels {
  const rowsOf = (records: readonly { kernel: KernelRow['kernel'] }[]) => [
    ...new Set(records.flatMap(({ kernel }) => table.find(nameOf(kernel)) ?? [])),
  ]
  // a form writes `+` as %2B; a pasted address may have it as it is, which reads as a space
  const words = [...new Set([text, text.replaceAll(' ', '+'), ...text.split(/\s+/)])]
  for (const word of words) {
    const row = word.includes('/') ? rowNamed(table, word) : undefined
    if (row) return { rows: [row], exact: true }
    const hex = word.toLowerCase()
    const found = [
      ...rowsOf(catalog.findBy('release', word)),
      ...(/^[0-9a-f]{8,128}$/.test(hex) ? rowsOf(catalog.findBy('buildId', hex)) : []),
      ...(/^[0-9a-f]{64}$/.test(hex) ? rowsOf(catalog.findBy('sha256', hex)) : []),
    ]
    if (found.length > 0) return { rows: [...new Set(found)], exact: true }
  }
  if (!/\d/.test(text)) return { rows: [], exact: false }
  return { rows: table.rows.filter(({ kernel }) => kernel.release.includes(text)), exact: false }
}

function rowNamed(table: KernelTable, text: string): KernelRow | undefined {
  try {
    const kernel = parseName(text)
    return kernel && table.find(nameOf(kernel))
  } catch {
    return undefined // not a name
  }
}

/** A name that may be in BTF: `struct sock`, `sock.sk_family`, `sk->sk_family`, `vfs_read()`. */
export interface SearchedName {
  readonly name: string
  readonly member?: string
}

/** Reads a text as the name of a type, a member or a function; undefined for other texts. */
export function nameIn(text: string): SearchedName | undefined {
  const plain = text
    .trim()
    .replace(/^(?:struct|union|enum|typedef)\s+/, '')
    .replace(/\s*[;({*].*$/s, '')
  const [, name, member] = /^([\w:<>]{2,255}?)(?:(?:\.|->|::)(\w[\w.]{0,254}))?$/.exec(plain) ?? []
  if (name === undefined || /^\d/.test(name)) return undefined
  return member === undefined ? { name } : { name, member }
}

/** The address of a type or function; with a member, its row in the page. */
export const addressOf = ({ kind, name }: TypeName, member?: string): string =>
  kind === 'func'
    ? functionUrl(name)
    : `${typeUrl(name)}${member === undefined ? '' : `#${anchorOf(member)}`}`

/** A type, member or function that a text may name. */
export interface FoundName {
  readonly kind: FoundKind
  readonly name: string
  /** the type of a member or enumerator */
  readonly of?: string
  readonly href: string
}

/** A name in one kernel; `member` is that of the text, if the text names this type. */
export function foundIn(found: TypeName, name: string, member: string | undefined): FoundName {
  return { ...found, href: addressOf(found, found.name === name ? member : undefined) }
}

const CALLED: ReadonlySet<FoundKind> = new Set([
  'func',
  'kfunc',
  'tracepoint',
  'helper',
  'map_type',
])

/** A result of the index. */
export function foundInIndex({ kind, name, of }: Found): FoundName {
  if (of) return { kind, name, of: of.name, href: memberUrl(of.name, name) }
  return { kind, name, href: CALLED.has(kind) ? functionUrl(name) : typeUrl(name) }
}

export interface SearchView {
  readonly query: string
  readonly found: number
  readonly kernels: readonly ListedKernel[]
  readonly names: readonly FoundName[]
  readonly similar: readonly string[]
}

/** What a search found: an address if it is one thing, else a page. */
export function searchPage(
  table: KernelTable,
  query: string,
  kernels: SearchedKernels,
  names: readonly FoundName[],
): { readonly href: string } | Page {
  const wanted = nameIn(query)
  const isExact = ({ name, of }: FoundName) =>
    wanted?.member === undefined || of === undefined
      ? of === undefined && name === wanted?.name
      : of === wanted.name && name === wanted.member
  const exact = names.filter(isExact)
  const [kernel, type] = [kernels.exact ? kernels.rows[0] : undefined, exact.at(-1)]
  if (kernel && kernels.rows.length === 1 && !type) return { href: kernelUrl(kernel.name) }
  // a struct and its typedef have one page; a type and a function have two
  const hrefs = new Set(exact.map(({ href }) => href))
  if (type && kernels.rows.length === 0 && hrefs.size === 1) return { href: type.href }
  const nothing = kernels.rows.length + names.length === 0
  const releases = () => new Set(table.rows.map(({ kernel }) => kernel.release))
  const view: SearchView = {
    query,
    found: kernels.rows.length,
    kernels: kernels.rows.slice(0, MAX_KERNELS).map(listedKernel),
    names,
    similar: nothing ? findSimilar(query, releases()) : [],
  }
  return {
    template: 'search',
    title: `Search: ${query}`,
    description: 'Kernels, types and functions that match a text.',
    path: `/search?q=${encodeURIComponent(query)}`,
    unlisted: true,
    view,
  }
}

/*
 * /search: one box for anything. A text is tried as a kernel's name, a release, a build-id or digest, then as the name of
 * a type, a member or a function. People also paste the whole output of `uname -a`, a C declaration or `a->b`.
 */
import type { TypeName } from '../../bpf/index.ts'
import type { Catalog } from '../../storage/index.ts'
import { nameOf, parseName } from '../kernel/name.ts'
import { findSimilar } from '../kernel/similar.ts'
import type { KernelRow, KernelTable } from './kernel-table.ts'
import { type ListedKernel, listedKernel } from './kernels-page.ts'
import { anchorOf } from './layout-picture.ts'
import type { Page } from './render.ts'
import { functionUrl, kernelUrl, typeUrl } from './url.ts'

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

export interface SearchView {
  readonly query: string
  readonly found: number
  readonly kernels: readonly ListedKernel[]
  readonly names: readonly (TypeName & { readonly href: string })[]
  /** the kernel in which names were looked up */
  readonly kernel?: { readonly name: string; readonly release: string }
  readonly similar: readonly string[]
}

/** What a search found: an address if it is one thing, else a page. */
export function searchPage(
  table: KernelTable,
  query: string,
  kernels: SearchedKernels,
  names: { readonly row: KernelRow | undefined; readonly found: readonly TypeName[] },
): { readonly href: string } | Page {
  const wanted = nameIn(query)
  const exact = names.found.filter(({ name }) => name === wanted?.name)
  const [kernel, type] = [kernels.exact ? kernels.rows[0] : undefined, exact[0]]
  if (kernel && kernels.rows.length === 1 && !type) return { href: kernelUrl(kernel.name) }
  // a struct and its typedef, or a type and a function, are told apart on the page
  if (type && kernels.rows.length === 0 && isOne(exact))
    return { href: addressOf(type, wanted?.member) }
  const nothing = kernels.rows.length + names.found.length === 0
  const view: SearchView = {
    query,
    found: kernels.rows.length,
    kernels: kernels.rows.slice(0, MAX_KERNELS).map(listedKernel),
    names: names.found.map((one) => ({
      ...one,
      href: addressOf(one, one.name === wanted?.name ? wanted.member : undefined),
    })),
    ...(names.row && { kernel: { name: names.row.name, release: names.row.kernel.release } }),
    similar: nothing
      ? findSimilar(query, new Set(table.rows.map(({ kernel }) => kernel.release)))
      : [],
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

/** Tells whether all names are types, or all are functions: one page shows them. */
const isOne = (names: readonly TypeName[]): boolean =>
  new Set(names.map(({ kind }) => kind === 'func')).size === 1

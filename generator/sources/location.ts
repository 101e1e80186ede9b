/*
 * The locations that an index gives for its files. They must lie within the index's own repository, or at least on its
 * server.
 */
import { withoutCredentials } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'

/**
 * Resolves a path as an index writes it against `base` (a URL without a trailing slash), and escapes each part. Errors:
 * `invalid_index` if the path leads out of `base`.
 */
export function fileBelow(base: string, path: string): string {
  return `${base}/${escapedPath(path, path)}`
}

/**
 * Resolves a path as `fileBelow` does, but the path may first leave `base` (`../../blobstore/…`) as long as it stays on
 * the server: Amazon's repositories share their packages so. A local path may not, since there is no server to stay on.
 * Errors: `invalid_index`.
 */
export function fileOnServer(base: string, path: string): string {
  const [ups = '', rest = ''] = /^((?:\.\.\/)*)(.*)$/s.exec(path)?.slice(1) ?? []
  if (ups === '') return fileBelow(base, path)
  if (!/^https?:/.test(base)) throw outsideError(path)
  return new URL(`${ups}${escapedPath(rest, path)}`, `${base}/`).href
}

/** Escapes each part of `rest`, which must not leave its directory. `path`: for the error. Errors: `invalid_index`. */
function escapedPath(rest: string, path: string): string {
  const parts = rest.replace(/^(\.\/)+/, '').split('/')
  const isValid = parts.every((part) => /^(?!\.{1,2}$)[\w.+~^:%@=,-]+$/.test(part))
  if (!isValid || path.length > 1024) throw outsideError(path)
  return parts.map(encodeURIComponent).join('/')
}

/**
 * Resolves a link on the page at `base` (a URL without a trailing slash). Returns its URL, and its unescaped path
 * relative to the page; undefined if it leads out of the page's directory.
 */
export function linkBelow(base: string, href: string): { url: string; path: string } | undefined {
  const page = new URL(`${base}/`)
  const url = URL.parse(href, page.href)
  if (!url || url.protocol !== page.protocol || url.host !== page.host || url.username !== '')
    return undefined
  if (!url.pathname.startsWith(page.pathname)) return undefined
  const path = unescaped(url.pathname.slice(page.pathname.length))
  url.search = ''
  url.hash = ''
  return path === undefined ? undefined : { url: url.href, path }
}

/**
 * Checks a URL from a response: it must have the protocol of `origin`, and its host or one of `hosts`. Errors:
 * `invalid_index`.
 */
export function urlAt(origin: string, text: string, hosts: readonly string[] = []): string {
  const [from, url] = [new URL(origin), URL.parse(text)]
  const isKnownHost = url && (url.host === from.host || hosts.includes(url.host))
  if (!isKnownHost || url.protocol !== from.protocol || url.username !== '')
    throw outsideError(text)
  return url.href
}

function unescaped(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

const outsideError = (location: string): GeneratorError =>
  new GeneratorError(
    'invalid_index',
    `the index names a file outside its repository: ${JSON.stringify(withoutCredentials(location).slice(0, 80))}`,
  )

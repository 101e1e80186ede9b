/* Where an index says that a file is: below the index's own repository, or nowhere. */
import { GeneratorError } from '../error.ts'

/**
 * The URL of a path as it is written below `base` (a URL without a slash at its end), each part of it escaped.
 * Errors: `invalid_index` for one that leads elsewhere.
 */
export function fileBelow(base: string, path: string): string {
  const parts = path.replace(/^(\.\/)+/, '').split('/')
  const sound = parts.every((part) => /^(?!\.{1,2}$)[\w.+~^:%@=,-]+$/.test(part))
  if (!sound || path.length > 1024) throw astray(path)
  return `${base}/${parts.map(encodeURIComponent).join('/')}`
}

/**
 * The URL that a link on the page at `base` leads to, and the path of it below the page, unescaped; undefined for one
 * that leads out of the page's directory.
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

/** A URL that an answer gives, where it is of `origin` or of one of these hosts. Errors: `invalid_index`. */
export function urlAt(origin: string, text: string, hosts: readonly string[] = []): string {
  const [from, url] = [new URL(origin), URL.parse(text)]
  const known = url && (url.host === from.host || hosts.includes(url.host))
  if (!known || url.protocol !== from.protocol || url.username !== '') throw astray(text)
  return url.href
}

function unescaped(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

const astray = (to: string): GeneratorError =>
  new GeneratorError(
    'invalid_index',
    `it leads out of its repository: ${JSON.stringify(to.slice(0, 80))}`,
  )

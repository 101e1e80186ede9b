/*
 * Directory listings of web servers: HTML, from which only the links to files in the directory itself are taken. nginx,
 * Apache and lighttpd differ in everything else.
 */

import { Parser } from 'htmlparser2'
import { sha256Of, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { rpmNameOf } from '../sources/file-name.ts'
import { linkBelow } from '../sources/location.ts'
import type { PackageName } from '../sources/naming.ts'
import { type IndexOptions, readIndex, readParsed } from './index-cache.ts'

/** Bytes of a page, and links on it. The largest pages of distributions have about 20 000 links. */
const MAX_PAGE = 32 * 1024 * 1024
const MAX_LINKS = 500_000
/** Open elements: the parser takes time in proportion to them for each tag. Real pages have about ten. */
const MAX_DEPTH = 1000

/** Changes whenever `parseListing` gives other packages for the same page. */
const PARSER = 'listing 1'

export interface ListedPackage extends Required<PackageName> {
  url: string
}

/**
 * Reads the .rpm files that the page at `base` (a URL without a trailing slash) lists. Errors: `invalid_index`,
 * `too_large`; those of `readIndex`.
 */
export async function readListing(base: string, options: IndexOptions): Promise<ListedPackage[]> {
  const page = await readIndex(`${base}/`, MAX_PAGE, options)
  return await readParsed(
    {
      id: [PARSER, base],
      checksum: { algorithm: 'sha256', hex: sha256Of(page) },
      parse: async () => parseListing(base, page.toString('utf8')),
    },
    options,
  )
}

/** Reads the links to .rpm files on a page. Errors: `invalid_index`, `too_large`. */
export function parseListing(base: string, page: string): ListedPackage[] {
  const found = new Map<string, ListedPackage>()
  for (const href of linksOf(page)) {
    const link = linkBelow(base, href)
    const name = link && rpmNameOf(link.path)
    if (name) found.set(link.url, { ...name, url: link.url })
  }
  if (found.size === 0)
    throw new GeneratorError(
      'invalid_index',
      `${showable(base)}/: the page has no link to an .rpm file`,
    )
  return [...found.values()]
}

function linksOf(page: string): string[] {
  const links: string[] = []
  let depth = 0
  const parser = new Parser({
    onclosetag() {
      depth--
    },
    onopentag(name, { href }) {
      if (++depth > MAX_DEPTH)
        throw new GeneratorError(
          'invalid_index',
          `the page has more than ${MAX_DEPTH} open elements`,
        )
      if (name === 'a' && href !== undefined) links.push(href)
      if (links.length > MAX_LINKS)
        throw new GeneratorError('too_large', `the page has more than ${MAX_LINKS} links`)
    },
  })
  parser.end(page)
  return links
}

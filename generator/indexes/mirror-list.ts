/*
 * Mirrors: the first one that works is read. A source names them, or a file does (mirror.list of Amazon's repositories:
 * one URL per line, the best first).
 */

import type { FailureCode } from '../../storage/index.ts'
import { showable, withoutCredentials } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

/** bytes */
const MAX_LIST = 64 * 1024
/** Mirrors that are tried. A file that none of them has is unlikely to be on the next. */
const MAX_MIRRORS = 4

/** Errors of a mirror after which the next one is tried. */
const MIRROR_ERRORS: readonly FailureCode[] = [
  'unreachable',
  'not_found_upstream',
  'stalled',
  'truncated',
]

/**
 * Reads a list of mirrors and returns the result of `read` for the first mirror that works; mirrors are URLs without a
 * trailing slash. Errors: `invalid_index` if the first line is not a mirror; those of `readIndex` and `readFromFirst`.
 */
export async function readFromMirrors<T>(
  list: MirrorList,
  options: IndexOptions,
  read: (mirror: string) => Promise<T>,
): Promise<T> {
  return await readFromFirst(await mirrorsIn(list, options), read)
}

/**
 * Returns the result of `read` for the first mirror that works. Errors: those of `read`. If no mirror works, the error
 * is that of the first.
 */
export async function readFromFirst<T>(
  [best, ...others]: readonly [string, ...string[]],
  read: (mirror: string) => Promise<T>,
): Promise<T> {
  try {
    return await read(best)
  } catch (error) {
    if (!isMirrorError(error)) throw error
    for (const mirror of others) {
      try {
        return await read(mirror)
      } catch (other) {
        if (!isMirrorError(other)) throw other
      }
    }
    throw error
  }
}

const isMirrorError = (error: unknown): boolean =>
  error instanceof GeneratorError && MIRROR_ERRORS.includes(error.code)

export interface MirrorList {
  url: string
  /** the distribution's architecture name: mirrors may have `$basearch` in their URL, as in yum's configuration */
  architecture: string
  /** a list that came over TLS may name mirrors without: their packages are authenticated by their signatures only */
  plain?: boolean
}

async function mirrorsIn(
  { url, architecture, plain = false }: MirrorList,
  options: IndexOptions,
): Promise<[string, ...string[]]> {
  const text = (await readIndex(url, MAX_LIST, options)).toString('utf8')
  const lines = text.split('\n').map((line) => line.trim())
  const [first = '', ...rest] = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const protocols = protocolsAt(url, plain)
  const mirrorOf = (line: string) =>
    parseMirror(
      line.replaceAll('$basearch', () => architecture),
      protocols,
    )
  const best = mirrorOf(first)
  if (best === undefined)
    throw new GeneratorError(
      'invalid_index',
      `${showable(url)}: invalid mirror ${JSON.stringify(withoutCredentials(first).slice(0, 80))}: expected a URL`,
    )
  return [best, ...rest.slice(0, MAX_MIRRORS - 1).flatMap((line) => mirrorOf(line) ?? [])]
}

/** The protocols of the mirrors in a list. Without `plain`, a list that came over TLS may only name mirrors with TLS. */
function protocolsAt(list: string, plain: boolean): readonly string[] {
  const { protocol } = new URL(list)
  const isPlain = protocol === 'http:' || (plain && protocol === 'https:')
  return isPlain ? ['https:', 'http:'] : [protocol]
}

function parseMirror(text: string, protocols: readonly string[]): string | undefined {
  const mirror = URL.parse(text)
  const isBare = mirror && mirror.username === '' && mirror.search === '' && mirror.hash === ''
  return isBare && protocols.includes(mirror.protocol) ? mirror.href.replace(/\/+$/, '') : undefined
}

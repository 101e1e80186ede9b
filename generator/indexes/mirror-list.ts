/* mirror.list, as Amazon's repositories have it: URLs of mirrors, one a line, the best one first. */
import type { FailureCode } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

const MAX_LIST = 64 * 1024
/** So many mirrors are tried: what none of these has will not come from the next. */
const TRIED = 4

/** What says of a mirror that another may be better. */
const AWAY: readonly FailureCode[] = ['unreachable', 'not_found_upstream', 'stalled', 'truncated']

/**
 * What `read` makes of the first mirror of a list that answers; mirrors are without a slash at their end. A list that
 * came over TLS names mirrors with TLS. Errors: those of `readIndex`, `invalid_index` where the list begins with something
 * else; those of `read`, of the first mirror where none answers.
 */
export async function readFromMirrors<T>(
  url: string,
  options: IndexOptions,
  read: (mirror: string) => Promise<T>,
): Promise<T> {
  const [best, ...others] = await mirrorsIn(url, options)
  try {
    return await read(best)
  } catch (error) {
    if (!isAway(error)) throw error
    for (const mirror of others) {
      try {
        return await read(mirror)
      } catch (other) {
        if (!isAway(other)) throw other
      }
    }
    throw error
  }
}

const isAway = (error: unknown): boolean =>
  error instanceof GeneratorError && AWAY.includes(error.code)

async function mirrorsIn(url: string, options: IndexOptions): Promise<[string, ...string[]]> {
  const text = (await readIndex(url, MAX_LIST, options)).toString('utf8')
  const lines = text.split('\n').map((line) => line.trim())
  const [first = '', ...rest] = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const best = mirrorOf(first, url)
  if (best === undefined)
    throw new GeneratorError(
      'invalid_index',
      `${url}: no mirror: ${JSON.stringify(first.slice(0, 80))}`,
    )
  return [best, ...rest.slice(0, TRIED - 1).flatMap((line) => mirrorOf(line, url) ?? [])]
}

function mirrorOf(line: string, list: string): string | undefined {
  const mirror = URL.parse(line)
  const allowed = list.startsWith('http:') ? ['https:', 'http:'] : [new URL(list).protocol]
  const plain = mirror && mirror.username === '' && mirror.search === '' && mirror.hash === ''
  return plain && allowed.includes(mirror.protocol) ? mirror.href.replace(/\/+$/, '') : undefined
}

/* mirror.list, as Amazon's repositories have it: URLs of mirrors, one a line, of which the first is taken. */
import { GeneratorError } from './error.ts'
import { type IndexOptions, readIndex } from './index-cache.ts'

const MAX_LIST = 64 * 1024

/**
 * The first mirror that a list names, without a slash at its end. A list that came over TLS names mirrors with TLS.
 * Errors: those of `readIndex`, `bad_index`.
 */
export async function firstMirror(url: string, options: IndexOptions): Promise<string> {
  const text = (await readIndex(url, MAX_LIST, options)).toString('utf8')
  const lines = text.split('\n').map((line) => line.trim())
  const [first = ''] = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const mirror = URL.parse(first)
  const allowed = url.startsWith('http:') ? ['https:', 'http:'] : [new URL(url).protocol]
  const plain = mirror && mirror.username === '' && mirror.search === '' && mirror.hash === ''
  if (!plain || !allowed.includes(mirror.protocol)) {
    throw new GeneratorError(
      'bad_index',
      `${url}: no mirror: ${JSON.stringify(first.slice(0, 80))}`,
    )
  }
  return mirror.href.replace(/\/+$/, '')
}

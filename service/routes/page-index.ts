/*
 * Questions of pages to the index of all types. Pages also work without it, or while it is made: they say less. Answers
 * are reused for a short time, since people look at a page, its next page and its neighbours.
 */
import { LRUCache } from 'lru-cache'
import type { IndexReader } from '../declarations/reader.ts'
import type { IndexQuestion } from '../declarations/worker.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'

/** Limits of the answers that are reused: their number, and milliseconds. */
const REUSED = { max: 48, ttl: 30_000 }

const answers = new WeakMap<object, LRUCache<string, { readonly answer: unknown }>>()

/** The answer of the index; undefined without an index, and while it is not ready. Errors: those of `KeptIndex.ask`. */
export async function askIndex<Q extends IndexQuestion>(
  { declarations }: Pick<Context, 'declarations'>,
  question: Q,
  ...of: Parameters<IndexReader[Q]>
): Promise<ReturnType<IndexReader[Q]> | undefined> {
  if (!declarations) return undefined
  const known = answers.get(declarations) ?? new LRUCache(REUSED)
  answers.set(declarations, known)
  const key = JSON.stringify([question, ...of])
  const found = known.get(key)
  if (found) return found.answer as ReturnType<IndexReader[Q]>
  try {
    const answer = await declarations.ask(question, ...of)
    known.set(key, { answer })
    return answer
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'unavailable') return undefined
    throw error
  }
}

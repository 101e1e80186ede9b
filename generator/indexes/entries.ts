/* The entries of an index. One that is invalid hides only itself, not the index with all its other packages. */
import { GeneratorError } from '../error.ts'
import type { IndexOptions } from './index-cache.ts'

/**
 * Converts the entries of an index. An invalid one is left out, and `onRefused` gets its error. Errors: `invalid_index`
 * if all entries are invalid: that of the first one.
 */
export function usableEntries<E, P>(
  entries: readonly E[],
  convert: (entry: E) => P,
  { onRefused }: Pick<IndexOptions, 'onRefused'>,
): P[] {
  let first: GeneratorError | undefined
  const usable = entries.flatMap((entry) => {
    try {
      return [convert(entry)]
    } catch (error) {
      if (!(error instanceof GeneratorError)) throw error
      first ??= error
      onRefused?.(error)
      return []
    }
  })
  if (first && usable.length === 0) throw first
  return usable
}

/* A store whose operations are counted and timed, up to the store's response and without the reading of a body. */
import type { ObjectInfo, Store } from '../../storage/index.ts'
import { StoreError } from '../../storage/index.ts'
import type { Metrics } from './metrics.ts'

export function meter(store: Store, metrics: Metrics): Store {
  const measure = (operation: string) => {
    const started = performance.now()
    return (error?: unknown) => {
      const result = error === undefined ? 'ok' : error instanceof StoreError ? error.code : 'other'
      metrics.storeOperation(operation, result, (performance.now() - started) / 1000)
    }
  }
  const measured = async <T>(operation: string, work: Promise<T>): Promise<T> => {
    const done = measure(operation)
    return await work.then(
      (value) => {
        done()
        return value
      },
      (error) => {
        done(error)
        throw error
      },
    )
  }
  return {
    url: store.url,
    get: (...args) => measured('get', store.get(...args)),
    head: (...args) => measured('head', store.head(...args)),
    put: (...args) => measured('put', store.put(...args)),
    delete: (...args) => measured('delete', store.delete(...args)),
    async *list(prefix): AsyncGenerator<ObjectInfo> {
      const done = measure('list')
      try {
        yield* store.list(prefix)
        done()
      } catch (error) {
        done(error)
        throw error
      }
    },
  }
}

/* Partial BTF beside that of whole kernels, for commands that are told to take both. */
import { Catalog, type OnInvalid } from './catalog.ts'
import { ignoreNotFound, StoreError } from './error.ts'
import { partialOf } from './partial.ts'
import type { Store } from './store.ts'

/**
 * A store and its catalog with the kernels of which only partial BTF is there beside the others, to be read only. Records of
 * the former have the origin `headers`. Errors: those of `Catalog.open`.
 */
export async function openWithPartial(
  store: Store,
  onInvalid?: OnInvalid,
): Promise<{ store: Store; catalog: Catalog }> {
  const part = partialOf(store)
  const whole = await Catalog.open(store, onInvalid)
  const others = await Catalog.open(part, onInvalid)
  const lacking = others.list().filter(({ record }) => {
    const builds = whole.find(record.kernel)
    return record.btf !== undefined && !builds.some(({ btf }) => btf)
  })
  const catalog = Catalog.of([...whole.list(), ...lacking])
  const get = async (...[key, range]: Parameters<Store['get']>) => {
    try {
      return await store.get(key, range)
    } catch (error) {
      ignoreNotFound(error)
      return await part.get(key, range)
    }
  }
  const readOnly = () => {
    throw new StoreError('unsupported', 'a view of partial BTF beside the other can only be read')
  }
  return {
    catalog,
    store: {
      url: store.url,
      get,
      head: (key) => store.head(key),
      list: (prefix) => store.list(prefix),
      put: async () => readOnly(),
      delete: async () => readOnly(),
    },
  }
}

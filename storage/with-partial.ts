/* Partial BTF beside that of whole kernels, for those that are told to take both. */
import { Catalog, type OnInvalid } from './catalog.ts'
import { ignoreNotFound, StoreError } from './error.ts'
import type { KernelFilter } from './kernel.ts'
import { partialOf } from './partial.ts'
import type { Store } from './store.ts'

/**
 * The kernels of a catalog that match a filter, and those of which only `others`, a catalog of partial BTF, has some.
 * Records of the latter have the origin `headers`.
 */
export function withPartial(whole: Catalog, others: Catalog, filter?: KernelFilter): Catalog {
  const lacking = others.list(filter).filter(({ record }) => {
    const builds = whole.find(record.kernel)
    return record.btf !== undefined && !builds.some(({ btf }) => btf)
  })
  return Catalog.of([...whole.list(filter), ...lacking])
}

/** A store whose blobs and records are found among those of partial BTF, too. It can only be read. */
export function readWithPartial(store: Store): Store {
  const part = partialOf(store)
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
    url: store.url,
    get,
    head: (key) => store.head(key),
    list: (prefix) => store.list(prefix),
    put: async () => readOnly(),
    delete: async () => readOnly(),
  }
}

/** A store and its catalog with partial BTF beside the other, to be read only. Errors: those of `Catalog.open`. */
export async function openWithPartial(
  store: Store,
  onInvalid?: OnInvalid,
): Promise<{ store: Store; catalog: Catalog }> {
  const whole = await Catalog.open(store, onInvalid)
  const others = await Catalog.open(partialOf(store), onInvalid)
  return { catalog: withPartial(whole, others), store: readWithPartial(store) }
}

/*
 * The store of partial BTF: a store within the store, below `partial/`. BTF made from headers has some of a kernel's types
 * only. A consumer that takes it for all of them gets wrong answers: a type that is not there looks like one that the
 * kernel lacks. So its records, its blobs and its snapshot are under keys of their own, where no list, no snapshot, no
 * archive and no version of btfmill that does not know it finds them. All that works on a store works on this one.
 */
import { StoreError } from './error.ts'
import type { ObjectInfo, Store } from './store.ts'

const PREFIX = 'partial/'

class PartialStore implements Store {
  readonly #whole: Store
  readonly url: string

  constructor(whole: Store) {
    this.#whole = whole
    this.url = whole.url
  }

  async get(...[key, range]: Parameters<Store['get']>): ReturnType<Store['get']> {
    const { body, ...info } = await this.#whole.get(PREFIX + key, range)
    return { ...inside(info), body }
  }

  async head(key: string): Promise<ObjectInfo> {
    return inside(await this.#whole.head(PREFIX + key))
  }

  async put(...[key, body, options]: Parameters<Store['put']>): Promise<ObjectInfo> {
    return inside(await this.#whole.put(PREFIX + key, body, options))
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    for await (const info of this.#whole.list(PREFIX + prefix)) yield inside(info)
  }

  async delete(key: string): Promise<void> {
    await this.#whole.delete(PREFIX + key)
  }
}

const inside = (info: ObjectInfo): ObjectInfo => ({ ...info, key: info.key.slice(PREFIX.length) })

/** The store of partial BTF within a store. Its keys are those of any store, without the prefix. */
export const partialOf = (store: Store): Store =>
  store instanceof PartialStore ? store : new PartialStore(store)

/** Tells whether a store is one of partial BTF. */
export const isPartialStore = (store: Store): boolean => store instanceof PartialStore

/**
 * Checks that a record is in the store that it belongs to: only partial BTF in that of partial BTF, and none elsewhere.
 * Errors: `invalid_record`.
 */
export function checkPlace(store: Store, key: string, origin: string): void {
  if ((origin === 'headers') === isPartialStore(store)) return
  const message =
    origin === 'headers'
      ? `${key}: partial BTF, made from headers, among that of whole kernels`
      : `${key}: BTF of a whole kernel among partial BTF`
  throw new StoreError('invalid_record', message)
}

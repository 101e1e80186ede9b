import type { Catalog, Store } from '../storage/index.ts'

/** What the routes work with. */
export interface Context {
  store: Store
  catalog: Catalog
}

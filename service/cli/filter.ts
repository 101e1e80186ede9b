/** The options that every command takes. */
export interface CommonOptions {
  store: string
  json?: boolean
}

export { filterOf } from '../kernel/filter.ts'

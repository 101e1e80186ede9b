/* Opens a store by its URL. A backend's code is loaded only when it is used. */
import { resolve } from 'node:path'
import { StoreError } from './error.ts'
import type { Presigner } from './presign.ts'
import type { Store } from './store.ts'

/** The URL of the default store. */
export const DEFAULT_STORE = 'file:./btfmill-store'

export interface OpenOptions {
  /** makes the directory of a store on disk if it is missing (default: true) */
  create?: boolean
}

const BACKENDS: Record<string, (rest: string, options: OpenOptions) => Promise<Store>> = {
  file: async (path, options) => (await import('./disk.ts')).openDisk(directoryOf(path), options),
  s3: async (rest) => (await import('./s3.ts')).openS3(rest),
  memory: async () => (await import('./memory.ts')).openMemory(),
}

/** A path of a directory: it has no scheme, or begins like a path. */
const PATH = /^(?:\.{0,2}\/.*|[^:]+)$/s

/**
 * Opens the store at a plain path such as `./dir`, at `file:./dir`, `s3://bucket/prefix?endpoint=…` or `memory:`.
 * Errors: `unsupported` for any other URL; `not_found` for a missing directory that is not to be made; those of the
 * backend.
 */
export async function openStore(url: string, options: OpenOptions = {}): Promise<Store> {
  const full = PATH.test(url) ? `file:${url}` : url
  const [, scheme = '', rest = ''] = /^([a-z0-9]+):(.*)$/s.exec(full) ?? []
  const open = Object.hasOwn(BACKENDS, scheme) && BACKENDS[scheme]
  if (open) return await open(rest, options)
  const known = Object.keys(BACKENDS).map((name) => `${name}:`)
  const given = scheme ? `${scheme}:…` : url // the rest may contain a password
  throw new StoreError(
    'unsupported',
    `unsupported store URL ${JSON.stringify(given)}: expected a directory, or one of ${known.join(', ')}`,
  )
}

/**
 * Opens a presigner beside the store of a URL (presign.ts); undefined if the backend has no presigned URLs. Errors:
 * those of `openStore`.
 */
export async function openPresigner(url: string): Promise<Presigner | undefined> {
  return url.startsWith('s3:') ? await (await import('./presign.ts')).presignS3(url) : undefined
}

function directoryOf(path: string): string {
  const directory = path.replace(/^\/\//, '')
  if (directory === '')
    throw new StoreError('unsupported', 'file: has no directory: expected a URL such as file:./dir')
  return resolve(directory)
}

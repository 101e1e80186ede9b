/* One door to all backends: a URL says which. A backend's code is loaded when it is used. */
import { resolve } from 'node:path'
import { StoreError } from './error.ts'
import type { Presign } from './presign.ts'
import type { Store } from './store.ts'

/** Where btfmill keeps what it makes, unless told otherwise. */
export const DEFAULT_STORE = 'file:./btfmill-store'

const BACKENDS: Record<string, (rest: string) => Promise<Store>> = {
  file: async (path) => (await import('./disk.ts')).openDisk(directoryOf(path)),
  s3: async (rest) => (await import('./s3.ts')).openS3(rest),
  memory: async () => (await import('./memory.ts')).openMemory(),
}

/**
 * Opens `file:./dir`, `s3://bucket/prefix?endpoint=…` or `memory:`. Errors: `unsupported` for any other URL, and those of
 * the backend.
 */
export async function openStore(url: string): Promise<Store> {
  const [, scheme = '', rest = ''] = /^([a-z0-9]+):(.*)$/s.exec(url) ?? []
  const open = Object.hasOwn(BACKENDS, scheme) && BACKENDS[scheme]
  if (open) return await open(rest)
  const known = Object.keys(BACKENDS).map((name) => `${name}:`)
  const given = scheme ? `${scheme}:…` : url // the rest may hold a password
  throw new StoreError(
    'unsupported',
    `a store is one of ${known.join(', ')}, not ${JSON.stringify(given)}`,
  )
}

/**
 * What signs addresses at which anybody may read one object of a store for a while, as presign.ts says; undefined for a
 * store that has no such addresses. Errors: those of `openStore`.
 */
export async function openPresign(url: string): Promise<Presign | undefined> {
  return url.startsWith('s3:') ? await (await import('./presign.ts')).presignS3(url) : undefined
}

function directoryOf(path: string): string {
  const directory = path.replace(/^\/\//, '')
  if (directory === '')
    throw new StoreError('unsupported', 'file: wants a directory, as file:./dir')
  return resolve(directory)
}

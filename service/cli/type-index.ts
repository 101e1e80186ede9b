/*
 * The index of all types as commands use it: that of a store, brought in line with the store before it is asked, or that
 * of a service.
 */
import { Catalog, openStore, type Store } from '../../storage/index.ts'
import type { RemoteServer } from '../client/remote.ts'
import type { IndexStats } from '../declarations/answers.ts'
import { indexOf, NO_INDEX } from '../declarations/location.ts'
import { IndexReader } from '../declarations/reader.ts'
import { type UpdatableIndex, type UpdateSummary, updateIndex } from '../declarations/update.ts'
import { IndexWriter } from '../declarations/writer.ts'
import { ServiceError } from '../error.ts'
import { nameOf } from '../kernel/name.ts'
import { type SourceOptions, serverOf } from './input.ts'
import { printable } from './output.ts'

export interface TypeIndexOptions extends SourceOptions {
  index?: string
  json?: boolean
}

/** Asks the index of a store, or a service. `local` and `path` with its query are the same question. */
export async function askIndex<T>(
  options: TypeIndexOptions,
  local: (index: IndexReader, catalog: Catalog) => T | undefined,
  remote: {
    path: string
    query?: Readonly<Record<string, string | readonly string[] | undefined>>
  },
): Promise<T | undefined> {
  const server = await serverOf(options)
  if (server) return await askServer(server, remote)
  const store = await openStore(options.store, { create: false })
  const { path, catalog } = await refreshIndex(store, options.index)
  const reader = new IndexReader(path)
  try {
    return local(reader, catalog)
  } finally {
    reader.close()
  }
}

async function askServer<T>(
  server: RemoteServer,
  {
    path,
    query = {},
  }: { path: string; query?: Record<string, string | readonly string[] | undefined> },
): Promise<T | undefined> {
  try {
    return await server.request(path, { query }, async (bytes) => {
      try {
        return JSON.parse(bytes.toString('utf8')) as T
      } catch {
        throw server.invalid('it is not JSON')
      }
    })
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'unknown_type') return undefined
    throw error
  }
}

/** What `refreshIndex` has done. */
export interface RefreshedIndex extends UpdateSummary {
  path: string
  catalog: Catalog
  stats: () => IndexStats
}

/** Brings the index of a store in line with it, and says on standard error what takes long. Errors: `invalid_file`. */
export async function refreshIndex(
  store: Store,
  file?: string,
  { rebuild = false }: { rebuild?: boolean } = {},
): Promise<RefreshedIndex> {
  const path = file === undefined || file === NO_INDEX ? await indexOf(store.url) : file
  if (path === undefined)
    throw new ServiceError(
      'invalid_file',
      'no directory for the index is writable: expected --index FILE',
    )
  const catalog = await Catalog.open(store, (error) => say(error.message))
  const summary = await updateIndex(
    new LocalIndex(path),
    { store, catalog },
    {
      rebuild,
      onProgress: progress(),
      onError: (error, { kernel }) => say(`${nameOf(kernel)} is not indexed: ${error.message}`),
    },
  )
  const stats = () => {
    const reader = new IndexReader(path)
    try {
      return reader.stats()
    } finally {
      reader.close()
    }
  }
  return { ...summary, path, catalog, stats }
}

const say = (text: string): void => console.error(printable(`btfmill: ${text}`))

/** Kernels that are taken up without a word. */
const FEW = 5
/** Kernels between two lines, or on a terminal one. */
const STEP = 50

function progress(): (done: number, all: number) => void {
  const step = process.stderr.isTTY ? 1 : STEP
  return (done, all) => {
    if (all <= FEW || done % step !== 0) return
    const end = process.stderr.isTTY ? '\r' : '\n'
    process.stderr.write(`indexing ${done + 1} of ${all} kernels${end}`)
  }
}

/** An index that is written in this process. */
class LocalIndex implements UpdatableIndex {
  readonly #path: string
  #writer: IndexWriter | undefined

  constructor(path: string) {
    this.#path = path
  }

  async begin(rebuild: boolean): Promise<Set<string>> {
    await this.end()
    this.#writer = IndexWriter.open(this.#path, { rebuild })
    return this.#writer.digests()
  }

  async add(...of: Parameters<IndexWriter['add']>): Promise<string | undefined> {
    return this.#writer!.add(...of)
  }

  async fail(...of: Parameters<IndexWriter['fail']>): Promise<void> {
    this.#writer!.fail(...of)
  }

  async setKernels(
    kernels: Parameters<UpdatableIndex['setKernels']>[0],
    whole: boolean,
  ): Promise<void> {
    this.#writer!.setKernels(kernels, { whole })
  }

  async end(): Promise<void> {
    this.#writer?.close()
    this.#writer = undefined
  }
}

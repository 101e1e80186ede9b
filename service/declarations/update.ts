/*
 * Brings an index in line with a catalog: takes up the BTF that it lacks, series by series and oldest first, then the list
 * of kernels. What cannot be read from the store is reported and tried again with the next update. An index that turns out
 * to be damaged on the way is made again, and so is one in which most BTF belongs to no kernel any more.
 */
import {
  type Catalog,
  getBlob,
  type Store,
  StoreError,
  seriesOf,
  sortableRelease,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { UnusableIndex } from './database.ts'
import { type CatalogKernel, catalogKernel } from './writer.ts'

/** BTFs of no kernel that an index may have in addition to as many as it has of kernels. */
const MAX_UNUSED = 64

/** An index that can be updated: `IndexWriter`, or one in a thread. Errors of all methods: `UnusableIndex`. */
export interface UpdatableIndex {
  /** Opens the index; gives the digests of the BTFs that it has. */
  begin(rebuild: boolean): Promise<Set<string>>
  add(raw: Uint8Array, kernel: CatalogKernel): Promise<string | undefined>
  fail(sha256: string, message: string): Promise<void>
  setKernels(kernels: readonly CatalogKernel[], whole: boolean): Promise<void>
  end(): Promise<void>
}

export interface UpdateOptions {
  rebuild?: boolean
  signal?: AbortSignal
  /** reads raw BTF by its digest (default: `getBlob`) */
  read?: (sha256: string) => Promise<Uint8Array>
  /** called before each BTF that is taken up: those that are done, and all that were missing */
  onProgress?: (done: number, all: number) => void
  /** called with what is wrong with the BTF of a kernel */
  onError?: (error: Error, kernel: CatalogKernel) => void
}

/** What an update has done. */
export interface UpdateSummary {
  added: number
  /** BTFs that could not be read, or not be taken up */
  failed: number
  kernels: number
}

/** Updates an index. Errors: the system's; the signal's reason. */
export async function updateIndex(
  target: UpdatableIndex,
  { store, catalog }: { store: Store; catalog: Pick<Catalog, 'list'> },
  options: UpdateOptions = {},
): Promise<UpdateSummary> {
  const kernels = kernelsOf(catalog)
  try {
    return await update(target, store, kernels, options)
  } catch (error) {
    if (!(error instanceof UnusableIndex)) throw error
    return await update(target, store, kernels, { ...options, rebuild: true })
  } finally {
    await target.end().catch(() => {}) // the first error is the one to report
  }
}

async function update(
  target: UpdatableIndex,
  store: Store,
  kernels: readonly CatalogKernel[],
  options: UpdateOptions,
): Promise<UpdateSummary> {
  const { rebuild = false, signal, onProgress, onError } = options
  const read = options.read ?? ((sha256) => getBlob(store, sha256))
  let known = await target.begin(rebuild)
  const wanted = new Map(kernels.map((kernel) => [kernel.sha256, kernel]))
  const unused = [...known].filter((sha256) => !wanted.has(sha256)).length
  if (unused > wanted.size + MAX_UNUSED) known = await target.begin(true)
  const missing = [...wanted.values()].filter(({ sha256 }) => !known.has(sha256))
  const summary = { added: 0, failed: 0, kernels: kernels.length }
  for (const [done, kernel] of missing.entries()) {
    signal?.throwIfAborted()
    onProgress?.(done, missing.length)
    const failure = await take(target, read, kernel)
    if (failure === undefined) summary.added++
    else {
      summary.failed++
      onError?.(failure, kernel)
    }
  }
  signal?.throwIfAborted()
  await target.setKernels(kernels, true)
  return summary
}

/** Takes up the BTF of a kernel. Returns what is wrong with it. */
async function take(
  target: UpdatableIndex,
  read: (sha256: string) => Promise<Uint8Array>,
  kernel: CatalogKernel,
): Promise<Error | undefined> {
  const { sha256 } = kernel
  try {
    const failure = await target.add(await read(sha256), kernel)
    return failure === undefined ? undefined : new Error(failure)
  } catch (error) {
    if (error instanceof StoreError) return error // tried again with the next update
    if (!(error instanceof ServiceError) || error.code !== 'too_complex') throw error
    await target.fail(sha256, `too_complex: ${error.message}`)
    return error
  }
}

/** The kernels of a catalog that have BTF, by series, and oldest first: neighbours are taken up one after the other. */
function kernelsOf(catalog: Pick<Catalog, 'list'>): CatalogKernel[] {
  return [...catalog.list()]
    .filter(({ record }) => record.btf !== undefined)
    .map(({ key, record }) => ({
      kernel: catalogKernel(key, record),
      order: `${seriesOf(record.kernel)}\0${sortableRelease(record.kernel.release)}`,
    }))
    .sort((a, b) => (a.order < b.order ? -1 : a.order > b.order ? 1 : 0))
    .map(({ kernel }) => kernel)
}

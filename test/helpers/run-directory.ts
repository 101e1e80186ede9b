/* A directory for the runs of a test: a store, a scratch directory and input files, with checks of what is in it. */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import {
  type GenerateOptions,
  generate,
  generateFiles,
  type Source,
  type Summary,
} from '../../generator/index.ts'
import {
  type BuildRecord,
  Catalog,
  getBlob,
  listSourceFailures,
  openStore,
  type SourceFailure,
  type Store,
} from '../../storage/index.ts'
import type { Repository } from './apt-repository.ts'

export interface RunDirectory {
  /** for the input files of a test */
  directory: string
  scratch: string
  storeUrl: string
  store: Store
  /** Generates from a repository, from sources with their own URLs, or from files. */
  run(
    from: Pick<Repository, 'url' | 'source'> | { sources: readonly Source[] } | readonly string[],
    options?: Partial<GenerateOptions>,
  ): Promise<Summary>
  /** All records of the store. Fails if one is invalid. */
  records(): Promise<BuildRecord[]>
  sourceFailures(): Promise<SourceFailure[]>
  /** Paths of all files but the input, caches, records, symbols and the catalog: blobs, temporary files, scratch directories. */
  leftovers(): Promise<string[]>
  /** Reads the BTF of every record. Fails if one is missing or invalid. */
  verify(): Promise<void>
}

/** Options of downloads that retry at once, and give up soon. */
export const IMPATIENT = { timeout: 1000, retries: 2, minDelay: 1, maxDelay: 5 }

/** Makes a run directory that is removed after the test. */
export async function makeRunDirectory(t: Test): Promise<RunDirectory> {
  const directory = await mkdtemp(join(tmpdir(), 'run-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const at = (name: string) => join(directory, name)
  await mkdir(at('input'))
  const storeUrl = `file:${at('store')}`
  const store = await openStore(storeUrl)
  const settings = { store, scratch: at('scratch'), cache: at('cache'), retry: IMPATIENT }
  const records = async () => {
    const catalog = await Catalog.open(store, (error) => {
      throw error
    })
    return [...catalog.list()].map(({ record }) => record)
  }
  return {
    directory: at('input'),
    scratch: at('scratch'),
    storeUrl,
    store,
    async run(from, options) {
      const all = { ...settings, ...options }
      if ('sources' in from) return await generate({ ...all, ...from })
      if ('source' in from)
        return await generate({ ...all, mirror: from.url, sources: [from.source] })
      return await generateFiles(from, {}, all)
    },
    records,
    sourceFailures: () => Array.fromAsync(listSourceFailures(store)),
    async leftovers() {
      const files = await readdir(directory, { recursive: true, withFileTypes: true })
      return files
        .filter((file) => file.isFile() || file.parentPath === at('scratch'))
        .map((file) => join(file.parentPath, file.name).slice(directory.length + 1))
        .filter((path) => !/^(input|cache|store\/(kernels|sources|catalog|symbols))\//.test(path))
    },
    async verify() {
      for (const { btf } of await records()) if (btf) await getBlob(store, btf.sha256)
    },
  }
}

/*
 * The source table, assembled from one file per family of distributions, and a user's file, whose rows override it.
 * What rows have in common is in `conventions.ts`.
 */
import { readFile } from 'node:fs/promises'
import { type KernelFilter, valuesOf, type Wanted } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { ALIBABA_SOURCES } from './alibaba.ts'
import { AMAZON_SOURCES } from './amazon.ts'
import { CUSTOM_SOURCES } from './custom.ts'
import { DEBIAN_SOURCES } from './debian.ts'
import { ELREPO_SOURCES } from './elrepo.ts'
import { FEDORA_SOURCES } from './fedora.ts'
import { type KeyDirectories, withKeys } from './keys.ts'
import { MINIMAL_SOURCES } from './minimal.ts'
import { OPENEULER_SOURCES } from './openeuler.ts'
import { ORACLE_SOURCES } from './oracle.ts'
import { REDHAT_SOURCES } from './redhat.ts'
import { parseSource, type Source } from './source.ts'
import { SUSE_SOURCES } from './suse.ts'
import { TENCENT_SOURCES } from './tencent.ts'
import { UBUNTU_SOURCES } from './ubuntu.ts'

/** All known sources, in the order in which a run reads them. */
export const ALL_SOURCES: readonly Source[] = [
  ...DEBIAN_SOURCES,
  ...UBUNTU_SOURCES,
  ...REDHAT_SOURCES,
  ...FEDORA_SOURCES,
  ...ORACLE_SOURCES,
  ...AMAZON_SOURCES,
  ...SUSE_SOURCES,
  ...ALIBABA_SOURCES,
  ...OPENEULER_SOURCES,
  ...TENCENT_SOURCES,
  ...MINIMAL_SOURCES,
  ...ELREPO_SOURCES,
  ...CUSTOM_SOURCES,
].map(parseSource)

/** All known sources by id. */
export const SOURCES: ReadonlyMap<string, Source> = new Map(
  ALL_SOURCES.map((source) => [source.id, source]),
)

/**
 * Adds the rows of a user's file (a JSON array) to the known sources. A row with a known id needs only the fields that
 * it changes. With `keys`, the sources also use the keys in these directories. Errors: `invalid_index`.
 */
export async function readSources(
  path?: string,
  keys?: KeyDirectories,
): Promise<ReadonlyMap<string, Source>> {
  if (path === undefined && !keys) return SOURCES
  const rows = path === undefined ? [] : await parseRows(path)
  const sources = new Map(SOURCES)
  for (const row of rows) {
    const known = sources.get((row as Partial<Source> | null)?.id ?? '')
    const source = parseSource(known ? { ...known, ...(row as object) } : row)
    sources.set(source.id, source)
  }
  if (!keys) return sources
  return new Map([...sources].map(([id, source]) => [id, withKeys(source, keys)]))
}

async function parseRows(path: string): Promise<unknown[]> {
  const refuse = (why: string, cause?: unknown): never => {
    throw new GeneratorError('invalid_index', `${path}: ${why}`, { cause })
  }
  try {
    const rows: unknown = JSON.parse(await readFile(path, 'utf8'))
    return Array.isArray(rows) ? rows : refuse('expected a JSON array of sources')
  } catch (error) {
    if (error instanceof GeneratorError) throw error
    return refuse((error as Error).message, error)
  }
}

/**
 * Selects the sources that a run reads: those called `ids`, or all that are not opt-in. An opt-in source is added when
 * the filter names a version that only opt-in sources have.
 */
export function sourcesFor(
  filter: KernelFilter,
  sources: readonly Source[] = ALL_SOURCES,
  ids?: Wanted,
): Source[] {
  if (ids !== undefined) return sources.filter(({ id }) => valuesOf(ids).includes(id))
  const { distro = [], version = [] } = filter
  const defaults = sources.filter(({ optIn }) => !optIn)
  const has = (source: Source, distro: string, version: string) =>
    source.distro === distro && Object.hasOwn(source.versions, version)
  const onlyOptIn = valuesOf(distro).flatMap((distro) =>
    valuesOf(version)
      .filter((version) => !defaults.some((source) => has(source, distro, version)))
      .map((version) => [distro, version] as const),
  )
  const isNamed = (source: Source) => onlyOptIn.some((names) => has(source, ...names))
  return [...defaults, ...sources.filter((source) => source.optIn && isNamed(source))]
}

/*
 * The sources that btfmill knows, one file per family of distributions, and a user's own, whose rows override them.
 * The families repeat each other's words where the distributions do.
 */
import { readFile } from 'node:fs/promises'
import type { KernelFilter } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { ALIBABA_SOURCES } from './alibaba.ts'
import { AMAZON_SOURCES } from './amazon.ts'
import { CUSTOM_SOURCES } from './custom.ts'
import { DEBIAN_SOURCES } from './debian.ts'
import { FEDORA_SOURCES } from './fedora.ts'
import { OPENEULER_SOURCES } from './openeuler.ts'
import { ORACLE_SOURCES } from './oracle.ts'
import { REDHAT_SOURCES } from './redhat.ts'
import { parseSource, type Source } from './source.ts'
import { SUSE_SOURCES } from './suse.ts'
import { UBUNTU_SOURCES } from './ubuntu.ts'

/** In the order in which a run asks them. */
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
  ...CUSTOM_SOURCES,
].map(parseSource)

/** They, by id. */
export const SOURCES: ReadonlyMap<string, Source> = new Map(
  ALL_SOURCES.map((source) => [source.id, source]),
)

/**
 * The sources that btfmill knows, and those of a user's file: a JSON array of rows, of which one with a known id needs
 * only the fields that it changes. Errors: `invalid_index`, with what is wrong.
 */
export async function readSources(path?: string): Promise<ReadonlyMap<string, Source>> {
  if (path === undefined) return SOURCES
  const rows = await parseRows(path)
  const sources = new Map(SOURCES)
  for (const row of rows) {
    const known = sources.get((row as Partial<Source> | null)?.id ?? '')
    const source = parseSource(known ? { ...known, ...(row as object) } : row)
    sources.set(source.id, source)
  }
  return sources
}

async function parseRows(path: string): Promise<unknown[]> {
  const refuse = (why: string, cause?: unknown): never => {
    throw new GeneratorError('invalid_index', `${path}: ${why}`, { cause })
  }
  try {
    const rows: unknown = JSON.parse(await readFile(path, 'utf8'))
    return Array.isArray(rows) ? rows : refuse('it is no array of sources')
  } catch (error) {
    if (error instanceof GeneratorError) throw error
    return refuse((error as Error).message, error)
  }
}

/**
 * Of these sources those that a run asks: the one that it names, else all, but for those that are asked on request, of
 * which it asks those with a version that it names and no other source has.
 */
export function sourcesFor(
  filter: KernelFilter,
  sources: readonly Source[] = ALL_SOURCES,
  named?: string,
): Source[] {
  if (named !== undefined) return sources.filter(({ id }) => id === named)
  const { distro, version = '' } = filter
  const usual = sources.filter(({ optIn }) => !optIn)
  const has = (source: Source) =>
    source.distro === distro && Object.hasOwn(source.versions, version)
  return usual.some(has) ? usual : [...usual, ...sources.filter((one) => one.optIn && has(one))]
}

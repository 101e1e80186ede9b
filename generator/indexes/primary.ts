/*
 * primary.xml, the primary index of an rpm-md repository (createrepo_c(8)): its packages. `primary-sqlite.ts` reads the
 * same index as an SQLite database.
 */
import { GeneratorError } from '../error.ts'
import type { PackageName } from '../sources/naming.ts'
import { readXml } from './xml.ts'

/** A package as the index has it. */
export interface RpmEntry extends Required<PackageName> {
  epoch: string
  /** path relative to `base`, unchecked */
  path: string
  /** URL, unchecked (default: the repository's) */
  base?: string
  /** digest of the package file: RPM's algorithm name, and hex */
  checksum: { type: string; hex: string }
  /** bytes of the package file */
  size: number
}

/** Packages that are returned; a repository has some hundred kernels. */
const MAX_MATCHES = 100_000

/** Reads the packages that `wanted` accepts by name. Errors: `invalid_index`, `too_large`; those of the source. */
export async function readPrimaryXml(
  source: AsyncIterable<Uint8Array>,
  wanted: (name: PackageName) => boolean,
): Promise<RpmEntry[]> {
  const found: RpmEntry[] = []
  let fields: Record<string, string> = {}
  const PACKAGE = 'metadata/package'
  await readXml(source, 'metadata', {
    open(path, attributes) {
      if (path === PACKAGE) fields = {}
      const take = (element: string, names: readonly string[]) => {
        if (path !== `${PACKAGE}/${element}`) return
        for (const name of names) {
          if (attributes[name] !== undefined) fields[`${element}.${name}`] = attributes[name]
        }
      }
      take('version', ['epoch', 'ver', 'rel'])
      take('checksum', ['type'])
      take('size', ['package'])
      take('location', ['href', 'xml:base'])
    },
    close(path, text) {
      for (const element of ['name', 'arch', 'checksum'])
        if (path === `${PACKAGE}/${element}`) fields[element] = text.trim()
      if (path !== PACKAGE) return
      const entry = entryOf(fields)
      if (entry && wanted(entry)) found.push(entry)
      if (found.length > MAX_MATCHES)
        throw new GeneratorError('too_large', `the index has more than ${MAX_MATCHES} kernels`)
    },
  })
  return found
}

/** Builds an entry from attributes and texts; undefined without a name. */
function entryOf(fields: Readonly<Record<string, string>>): RpmEntry | undefined {
  const { name, arch = '', checksum = '' } = fields
  if (name === undefined) return undefined
  const base = fields['location.xml:base']
  return {
    name,
    arch,
    epoch: fields['version.epoch'] ?? '0',
    version: fields['version.ver'] ?? '',
    revision: fields['version.rel'] ?? '',
    path: fields['location.href'] ?? '',
    ...(base && { base }),
    checksum: { type: fields['checksum.type'] ?? '', hex: checksum },
    size: Number(fields['size.package'] ?? Number.NaN),
  }
}

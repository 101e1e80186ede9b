/*
 * Upstreams with archives: the tree of btfhub-archive, `ID/VERSION/ARCH/RELEASE.btf.tar.xz`, and Datadog's, which is the
 * same tree below btfs/ with a catalogue of the archives' digests: `{ arch: { distro: { version: { release: { sha256 } } } } }`.
 * The file in an archive has the name of the kernel.
 */
import { basename } from 'node:path/posix'
import {
  ANY,
  archiveArch,
  archivePath,
  type KernelName,
  namesOf,
  parentsOf,
  StoreError,
  sha256Of,
  unpackMember,
} from '../../storage/index.ts'
import { Semaphore } from '../concurrency.ts'
import type { UpstreamAddress } from '../upstream-address.ts'
import { UpstreamError } from './error.ts'
import { getFrom } from './get.ts'
import {
  archivedRecord,
  getterOf,
  MAX_SENT,
  type SentBtf,
  type UpstreamAsk,
  type UpstreamSource,
  type WantedBtf,
} from './source.ts'

/** The most names under which a kernel is asked for. */
const MAX_NAMES = 6
/** xz runs as a child process, and may use 256 MiB. */
const unpacking = new Semaphore(2, 256)

/** The names under which an archive may have a kernel: by the rules, as given, then those of its parents. */
export function archivedNamesOf({ kernel, choice }: WantedBtf): KernelName[] {
  if (!kernel || [kernel.distro, kernel.version, kernel.arch].includes(ANY)) return []
  const parents = parentsOf(kernel, choice).flatMap(({ distro, version }) =>
    version === undefined ? [] : [{ ...kernel, distro, version }],
  )
  const names = [...namesOf(kernel).reverse(), ...parents]
  const isFirst = (name: KernelName, n: number) =>
    names.findIndex((other) => archivePath(other) === archivePath(name)) === n
  return names.filter(isFirst).slice(0, MAX_NAMES)
}

/** The statuses of a file that is not there; a bucket that may not be listed says 403. */
export const isMissing = (status: number, { authorization }: UpstreamAddress): boolean =>
  status === 404 || status === 410 || (status === 403 && authorization === undefined)

/** The error of a status that no file has. */
export function statusError(status: number, { base }: UpstreamAddress): UpstreamError {
  const code = status === 401 || status === 403 ? 'refused' : 'invalid_response'
  return new UpstreamError(code, `${base} answers ${status}`)
}

export class BtfhubUpstream implements UpstreamSource {
  readonly #address: UpstreamAddress

  constructor(address: UpstreamAddress) {
    this.#address = address
  }

  async find(ask: UpstreamAsk): Promise<SentBtf[]> {
    for (const name of archivedNamesOf(ask)) {
      const found = await archiveAt(this.#address, { kind: 'btfhub', folder: '' }, name, ask)
      if (found) return [found]
    }
    return []
  }
}

/** The largest catalogue, in bytes: a hundred thousand kernels. */
const MAX_CATALOGUE = 16 * 1024 * 1024
/** Milliseconds until a catalogue is read again. */
const CATALOGUE_AGE = 10 * 60 * 1000

export class DatadogUpstream implements UpstreamSource {
  readonly #address: UpstreamAddress
  #catalogue: { value: unknown; etag: string | undefined; readAt: number } | undefined

  constructor(address: UpstreamAddress) {
    this.#address = { ...address, base: address.base.replace(/btfs\/$/, '') }
  }

  async find(ask: UpstreamAsk): Promise<SentBtf[]> {
    const { kernel } = ask
    if (!kernel || kernel.arch === ANY) return []
    const isWild = [kernel.distro, kernel.version].includes(ANY)
    const catalogue = await this.#read(ask)
    const names = isWild ? matchesIn(catalogue, kernel) : archivedNamesOf(ask)
    const found: SentBtf[] = []
    for (const name of names) {
      const sha256 = digestIn(catalogue, name)
      if (sha256 === undefined) continue
      const from = { kind: 'datadog', folder: 'btfs/', sha256 } as const
      const sent = await archiveAt(this.#address, from, name, ask)
      if (sent) found.push(sent)
      // a name with wildcards may be that of several kernels, and the choice is made by whoever looks it up
      if (sent && !isWild) break
    }
    return found
  }

  async #read({ signal, via }: UpstreamAsk): Promise<unknown> {
    const known = this.#catalogue
    if (known && known.readAt > Date.now() - CATALOGUE_AGE) return known.value
    const { base, catalog, authorization } = this.#address
    const url = new URL(catalog ?? 'btfs/catalog.json', base)
    const isOwn = url.origin === new URL(base).origin
    const { status, body, headers } = await getFrom(url, {
      signal,
      limit: MAX_CATALOGUE,
      headers: { via, ...(known?.etag !== undefined && { 'if-none-match': known.etag }) },
      ...(isOwn && { authorization }),
    })
    const readAt = Date.now()
    if (status === 304 && known) {
      this.#catalogue = { ...known, readAt }
      return known.value
    }
    if (status !== 200) throw statusError(status, this.#address)
    const value = parseCatalogue(body, url)
    this.#catalogue = { value, etag: headers.etag, readAt }
    return value
  }
}

function parseCatalogue(body: Buffer, { origin }: URL): unknown {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch {}
  throw new UpstreamError('invalid_response', `the catalogue of ${origin} is not a JSON object`)
}

/** The kernels of a catalogue that a name with wildcards matches. */
function matchesIn(catalogue: unknown, kernel: KernelName): KernelName[] {
  const arch = archiveArch(kernel.arch)
  const below = (names: readonly string[], wanted: string) =>
    wanted === ANY ? Object.keys(Object(levelAt(catalogue, names))) : [wanted]
  const names = below([arch], kernel.distro).flatMap((distro) =>
    below([arch, distro], kernel.version).map((version) => ({ ...kernel, distro, version })),
  )
  return names.filter((name) => digestIn(catalogue, name) !== undefined).slice(0, MAX_NAMES)
}

/** What a catalogue has below names. */
function levelAt(catalogue: unknown, names: readonly string[]): unknown {
  let level = catalogue
  for (const name of names) {
    if (typeof level !== 'object' || level === null || !Object.hasOwn(level, name)) return undefined
    level = (level as Record<string, unknown>)[name]
  }
  return level
}

/** The digest that a catalogue has for a kernel's archive. */
function digestIn(catalogue: unknown, kernel: KernelName): string | undefined {
  const { arch, distro, version, release } = kernel
  const level = levelAt(catalogue, [archiveArch(arch), distro, version, release, 'sha256'])
  return typeof level === 'string' && /^[0-9a-f]{64}$/i.test(level)
    ? level.toLowerCase()
    : undefined
}

interface ArchiveTree {
  kind: 'btfhub' | 'datadog'
  /** below the base */
  folder: string
  /** that the archive must have */
  sha256?: string
}

/** An archive of a tree; undefined if it is not there. Errors: those of `getFrom`; `digest_mismatch`, `kernel_mismatch`. */
async function archiveAt(
  address: UpstreamAddress,
  { kind, folder, sha256: announced }: ArchiveTree,
  name: KernelName,
  { signal, via }: UpstreamAsk,
): Promise<SentBtf | undefined> {
  const path = `${folder}${archivePath(name)}`
  const { status, body } = await getterOf(address)(path, {
    signal,
    limit: MAX_SENT,
    headers: { via },
  })
  if (isMissing(status, address)) return undefined
  if (status !== 200) throw statusError(status, address)
  const sha256 = sha256Of(body)
  if (announced !== undefined && sha256 !== announced)
    throw new UpstreamError(
      'digest_mismatch',
      `${address.base}${path} has the SHA-256 ${sha256}: the catalogue says ${announced}`,
    )
  const file = { url: `${address.base}${path}`, sha256, size: body.length }
  const vouched = announced === undefined ? 'none' : 'digest'
  const kernel = namesOf(name).at(-1)!
  return {
    bytes: await unpack(body, name.release, file.url, signal),
    encoding: 'identity',
    arch: kernel.arch,
    ...(announced !== undefined && { archive: body }),
    records: (btf) => [archivedRecord(kernel, btf, file, { kind, url: address.base, vouched })],
  }
}

const XZ_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0])

/** The BTF in an archive, whose one file is named after the kernel. */
async function unpack(
  archive: Buffer,
  release: string,
  url: string,
  signal: AbortSignal,
): Promise<Buffer> {
  if (!archive.subarray(0, XZ_MAGIC.length).equals(XZ_MAGIC))
    throw new UpstreamError('invalid_response', `${url} is not an xz file`)
  try {
    const { name, raw } = await unpacking.run(() => unpackMember(archive, signal, MAX_SENT), signal)
    if (basename(name) === `${release}.btf`) return raw
    throw new UpstreamError('kernel_mismatch', `${url} has the file ${JSON.stringify(name)}`)
  } catch (cause) {
    if (!(cause instanceof StoreError)) throw cause
    throw new UpstreamError('invalid_btf', `${url}: ${cause.message}`, { cause })
  }
}

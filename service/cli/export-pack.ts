/* `btfmill export --profile pack`, and `--verify` of a pack, which needs no manifest: its index has all digests. */
import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { InvalidArgumentError } from 'commander'
import { Catalog, getBlob, openStore, StoreError } from '../../storage/index.ts'
import { isDamaged } from '../bundle/member.ts'
import type { Available } from '../kernel/lookup.ts'
import { nameOf } from '../kernel/name.ts'
import { Pack, packFile } from '../pack/pack.ts'
import { makePack } from '../pack/writer.ts'
import { type BundleOutcome, replace } from './bundle-file.ts'
import { type CommonOptions, checkFilter, type FilterOptions, filterOf } from './input.ts'

interface PackOptions extends CommonOptions, FilterOptions {
  server?: string | undefined
  object: readonly string[]
  output?: string
  unsupported: string
  zstd?: boolean
  secretKey?: string
}

/** The default name of a pack. */
const FILE = 'btfs.btfpack'

/**
 * Writes a pack of the kernels that match. Records that cannot be read are passed to `onInvalid`. Errors:
 * `unknown_kernel`; those of `makePack`.
 */
export async function makePackFile(
  options: PackOptions,
  onInvalid: (error: StoreError) => void,
): Promise<{ result: BundleOutcome; path: string }> {
  const { server, object, zstd, secretKey, output: path = FILE } = options
  if (server) throw new InvalidArgumentError('a pack is made from a store: not with --server')
  if (object.length > 0 || zstd)
    throw new InvalidArgumentError('a pack has all types, compressed: no --object, no --zstd')
  if (secretKey) throw new InvalidArgumentError('a pack has no signature: not with --secret-key')
  const store = await openStore(options.store, { create: false })
  const catalog = await Catalog.open(store, onInvalid)
  const filter = filterOf(options)
  checkFilter(catalog, filter, options.store)
  const records = [...catalog.list(filter)]
    .map(({ record }) => record)
    .filter((record): record is Available => record.btf !== undefined)
  const read = ({ btf }: Available) => getBlob(store, btf.sha256)
  const { pieces, kernels, leftOut } = await makePack(records, read, isDamaged)
  if (path === '-') await pipeline(Readable.from(pieces), process.stdout)
  else
    await replace(path, (temporary) =>
      pipeline(Readable.from(pieces), createWriteStream(temporary, { flush: true })),
    )
  const findings = leftOut.map(({ record: { kernel }, error }) => ({
    ...{ kernel, code: 'damaged' as const, message: (error as Error).message, included: false },
  }))
  return {
    result: { kernels, leftOut: findings.length, findings, findingsOmitted: 0 },
    path,
  }
}

/** Rebuilds every kernel of a pack. Errors: `invalid_pack` for a damaged index; the system's. */
export async function verifyPackFile(path: string, publicKey: string | undefined) {
  if (publicKey !== undefined)
    throw new InvalidArgumentError('a pack has no signature: not with --public-key')
  const pack = await Pack.open(packFile(path))
  const { catalog } = pack.index
  const problems: { path: string; message: string }[] = []
  for await (const { member, result } of pack.readAll()) {
    if (!(result instanceof StoreError)) continue
    for (const { kernel } of catalog.findBy('sha256', member.sha256))
      problems.push({ path: nameOf(kernel), message: result.message })
  }
  if (await pack.hasTrailer())
    problems.push({ path, message: `there are bytes behind its ${pack.index.size} bytes` })
  return { kernels: catalog.size, problems }
}

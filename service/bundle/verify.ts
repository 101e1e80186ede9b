/* A bundle against its manifest, offline: every member by its digest, none too few, none too many. */
import { sha256Of } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { decodeManifest, MANIFEST, SIGNATURE, verifyManifest } from './manifest.ts'

/** A file of an archive; its path without a leading `./`. */
export interface BundleFile {
  path: string
  /** undefined for what is no regular file, or too large */
  bytes: Buffer | undefined
  /** of a hard link the path before it */
  link?: string
}

/** What is beside the archive. */
export interface Beside {
  manifest?: Buffer
  signature?: Buffer
}

export interface Verification {
  kernels: number
  /** whether the manifest is signed by the key that was given */
  signed: boolean
  problems: readonly { path: string; message: string }[]
}

/**
 * Compares a bundle with the manifest in it, else with that beside it, and that with its signature where there is a key.
 * Errors: `invalid_bundle` without a manifest that reads, or with a key and without a signature; `invalid_signature`,
 * `invalid_key`; those of the files' source.
 */
export async function verifyBundle(
  files: AsyncIterable<BundleFile>,
  beside: Beside,
  publicKey?: string,
): Promise<Verification> {
  const digests = new Map<string, string | undefined>()
  let { manifest, signature } = beside
  for await (const { path, bytes, link } of files) {
    if (path === MANIFEST) manifest = bytes
    else if (path === SIGNATURE) signature = bytes
    else digests.set(path, bytes ? sha256Of(bytes) : digests.get(link ?? ''))
  }
  if (!manifest) throw new ServiceError('invalid_bundle', 'there is no manifest in it or beside it')
  if (publicKey !== undefined) {
    if (!signature) throw new ServiceError('invalid_bundle', 'its manifest is not signed')
    verifyManifest(manifest, signature, publicKey)
  }
  const { kernels } = decodeManifest(manifest)
  const problems = [...compare(kernels, digests)]
  return { kernels: kernels.length, signed: publicKey !== undefined, problems }
}

function* compare(
  kernels: readonly { path: string; sha256: string }[],
  digests: ReadonlyMap<string, string | undefined>,
): Generator<{ path: string; message: string }> {
  const wanted = new Set<string>()
  for (const { path, sha256 } of kernels) {
    wanted.add(path)
    if (!digests.has(path)) yield { path, message: 'is missing' }
    else if (digests.get(path) !== sha256) yield { path, message: `is not ${sha256}` }
  }
  for (const path of digests.keys())
    if (!wanted.has(path)) yield { path, message: 'is not in the manifest' }
}

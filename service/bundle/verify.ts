/* Verifies a bundle against its manifest, offline: every member has its digest, and none is missing or unlisted. */
import { sha256Of } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import { decodeManifest, MANIFEST, SIGNATURE, verifyManifest } from './manifest.ts'

/** A file in an archive. */
export interface BundleFile {
  /** without a leading `./` */
  path: string
  /** undefined for a file that is not regular, or too large */
  bytes: Buffer | undefined
  /** target of a hard link: the path of an earlier file */
  link?: string
}

/** The files beside the archive. */
export interface DetachedManifest {
  manifest?: Buffer
  signature?: Buffer
}

export interface Verification {
  kernels: number
  /** whether the manifest has a valid signature of the given key */
  signed: boolean
  problems: readonly { path: string; message: string }[]
}

/**
 * Compares the files of a bundle with its manifest, and verifies the manifest's signature if there is a key. A manifest
 * inside the bundle precedes a detached one. Errors: `invalid_bundle` without a valid manifest, or without a signature
 * for the key; `invalid_signature`, `invalid_key`; those of `files`.
 */
export async function verifyBundle(
  files: AsyncIterable<BundleFile>,
  detached: DetachedManifest,
  publicKey?: string,
): Promise<Verification> {
  const digests = new Map<string, string | undefined>()
  let { manifest, signature } = detached
  for await (const { path, bytes, link } of files) {
    if (path === MANIFEST) manifest = bytes
    else if (path === SIGNATURE) signature = bytes
    else digests.set(path, bytes ? sha256Of(bytes) : digests.get(link ?? ''))
  }
  if (!manifest) throw new ServiceError('invalid_bundle', 'no manifest in the bundle or beside it')
  if (publicKey !== undefined) {
    if (!signature) throw new ServiceError('invalid_bundle', 'the manifest is not signed')
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
  const listed = new Set<string>()
  for (const { path, sha256 } of kernels) {
    listed.add(path)
    if (!digests.has(path)) yield { path, message: 'is missing' }
    else if (digests.get(path) !== sha256)
      yield { path, message: `does not have the SHA-256 ${sha256}` }
  }
  for (const path of digests.keys())
    if (!listed.has(path)) yield { path, message: 'is not in the manifest' }
}

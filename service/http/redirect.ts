/* Redirects of clients to the bucket for large BTF, so that its bytes do not pass through the service. */

import { blobKey, openPresigner, type Presigner } from '../../storage/index.ts'
import { BTF_TYPE } from '../cache/btf-bodies.ts'

/** Seconds for which a presigned URL is valid: enough to start a download. */
const SECONDS = 600

export interface Redirects {
  /** raw bytes of the largest BTF that is not redirected */
  readonly above: number
  /** The presigned URL of a blob; the bucket responds as this service would, with zstd as content encoding. */
  toBlob(sha256: string): Promise<string>
}

/** Undefined if `above` is 0 or the store cannot presign URLs. Errors: those of `openPresigner`. */
export async function openRedirects(
  storeUrl: string,
  above: number,
): Promise<Redirects | undefined> {
  const presign = above > 0 ? await openPresigner(storeUrl) : undefined
  return presign && redirectsBy(presign, above)
}

const redirectsBy = (presign: Presigner, above: number): Redirects => ({
  above,
  toBlob: (sha256) =>
    presign(blobKey(sha256), {
      seconds: SECONDS,
      contentType: BTF_TYPE,
      contentEncoding: 'zstd',
    }),
})

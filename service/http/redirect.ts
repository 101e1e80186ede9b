/* Sending clients to the bucket for large bodies, so that these pass by the service. */

import { blobKey, openPresigner, type Presigner } from '../../storage/index.ts'
import { BTF_TYPE } from '../cache/btf-bodies.ts'

/** For which an address is good: time enough to begin a download. */
const SECONDS = 600

export interface Redirects {
  /** only for BTF of more raw bytes */
  readonly above: number
  /** The address of a blob, answered as this service would: zstd as an encoding. */
  toBlob(sha256: string): Promise<string>
}

/** Undefined where that is for no size, 0, or the store has no addresses. Errors: those of `openPresigner`. */
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

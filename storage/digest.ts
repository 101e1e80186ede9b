import { createHash } from 'node:crypto'

/** The SHA-256 of bytes, or of a text as UTF-8, in hex: what addresses blobs and vouches for everything else. */
export const sha256Of = (bytes: Uint8Array | string): string =>
  createHash('sha256').update(bytes).digest('hex')

/** A file in an archive of any kind. Its bytes must be read before the next file is requested. */
export interface ArchiveEntry {
  /** as in the archive, not normalised */
  name: string
  /** a regular file with its own bytes: not a directory, symlink or hard link */
  regular: boolean
  /** for a hard link: the name of the earlier entry that it links to */
  link?: string
  /** bytes */
  size: number
  body: AsyncIterable<Uint8Array>
  /** digest of its bytes, if the package has one */
  digest?: Digest
}

export interface Digest {
  /** node:crypto's name */
  algorithm: string
  hex: string
}

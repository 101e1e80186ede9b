/** A file in an archive, whichever kind of archive that is. Its bytes are read before the next file is asked for. */
export interface ArchiveEntry {
  /** as the archive has it */
  name: string
  /** a regular file with bytes of its own: no directory, no symlink, no hard link to another one */
  regular: boolean
  /** of a hard link: the name of the entry before it that it is another name of */
  link?: string
  /** bytes */
  size: number
  body: AsyncIterable<Uint8Array>
  /** what its bytes must have, where the package says it */
  digest?: Digest
}

export interface Digest {
  /** as node:crypto names it */
  algorithm: string
  hex: string
}

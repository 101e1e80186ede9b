/*
 * Reads packs, in files and elsewhere. storage/pack.md specifies the file, bpf/delta.md its members. A kernel takes two
 * ranges of the file: the header with the index, and one that covers its chain.
 */
import { open } from 'node:fs/promises'
import {
  decodePackIndex,
  isPack,
  type PackIndex,
  PackMembers,
  type PackSource,
  type ReadMember,
  readPackIndex,
} from '../../storage/index.ts'

export type { PackSource } from '../../storage/index.ts'

/** A pack in a file. The errors are the system's. */
export function packFile(path: string): PackSource {
  return {
    async read(start, end, take) {
      const file = await open(path)
      try {
        return await take(file.createReadStream({ start, end: end - 1, autoClose: false }))
      } finally {
        await file.close()
      }
    },
  }
}

/** Tells whether a file begins as a pack does. Errors: the system's. */
export async function isPackFile(path: string): Promise<boolean> {
  const file = await open(path)
  try {
    if (!(await file.stat()).isFile()) return false
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0)
    return isPack(buffer.subarray(0, bytesRead))
  } finally {
    await file.close()
  }
}

export class Pack {
  readonly index: PackIndex
  readonly #source: PackSource
  readonly #members: PackMembers

  private constructor(source: PackSource, index: PackIndex) {
    this.#source = source
    this.index = index
    this.#members = new PackMembers(source, index.members)
  }

  /** Reads the header and the index, as one range. Errors: `invalid_pack`; those of the source. */
  static async open(source: PackSource): Promise<Pack> {
    const { header, bytes } = await readPackIndex(source)
    return new Pack(source, await decodePackIndex(header, bytes))
  }

  /** Reads the raw BTF with a digest, as one range. Errors: `not_found`, `invalid_pack`; those of the source. */
  async read(sha256: string): Promise<Buffer> {
    return await this.#members.read(sha256)
  }

  /**
   * Reads all members in their order. A damaged member stops no other that does not continue it. Errors: those of the
   * source.
   */
  readAll(): AsyncGenerator<ReadMember> {
    return this.#members.readAll()
  }

  /** Tells whether bytes follow the last member. Errors: those of the source. */
  async hasTrailer(): Promise<boolean> {
    const { size } = this.index
    return await this.#source.read(size, size + 1, async (bytes) => {
      for await (const piece of bytes) if (piece.length > 0) return true
      return false
    })
  }
}

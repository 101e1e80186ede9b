/*
 * ELF notes: each has three words (name size, descriptor size, type) in the file's byte order, then the name and the
 * descriptor, each padded to four bytes. `/sys/kernel/notes` holds raw notes in the machine's byte order; a vmlinux has
 * them in the section `.notes`.
 */

import { type ByteOrder, decodeLatin1, hexOf, viewOf } from './bytes.ts'
import { BtfError } from './error.ts'

const NT_GNU_BUILD_ID = 3

export interface ElfNote {
  /** without the closing NUL */
  readonly name: string
  readonly type: number
  readonly description: Uint8Array
}

/** Parses notes in file order. Errors: `truncated`. */
export function* parseNotes(bytes: Uint8Array, byteOrder: ByteOrder): Generator<ElfNote> {
  const view = viewOf(bytes)
  const little = byteOrder === 'little'
  for (let at = 0; at + 12 <= bytes.length; ) {
    const nameSize = view.getUint32(at, little)
    const size = view.getUint32(at + 4, little)
    const start = at + 12 + padded(nameSize)
    if (start + size > bytes.length) throw new BtfError('truncated', 'a note is cut off', at)
    yield {
      name: decodeLatin1(bytes.subarray(at + 12, at + 12 + Math.max(nameSize - 1, 0))),
      type: view.getUint32(at + 8, little),
      description: bytes.subarray(start, start + size),
    }
    at = start + padded(size)
  }
}

/** The GNU build-id in hex (usually 40 digits); undefined if the notes have none. Errors: `truncated`. */
export function buildIdOf(notes: Uint8Array, byteOrder: ByteOrder): string | undefined {
  for (const note of parseNotes(notes, byteOrder)) {
    if (note.name === 'GNU' && note.type === NT_GNU_BUILD_ID && note.description.length > 0) {
      return hexOf(note.description)
    }
  }
  return undefined
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4
}

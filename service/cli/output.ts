/* What a command leaves: text on standard output, files whole or not at all. */
import { randomUUID } from 'node:crypto'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/**
 * Prints text in pieces as fast as it is taken, and ends standard output; a reader that has seen enough (`| head`) is no
 * failure.
 */
export async function print(pieces: Iterable<string>): Promise<void> {
  await pipeline(Readable.from(pieces), process.stdout).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

/** Writes a file, and the directories it is in, in one step. Errors: the system's. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(temporary, bytes, { flush: true })
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}) // what went wrong first is what is told
    throw error
  }
}

/** Text from a file of someone else's, so that it cannot steer the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?')
}

/** A value as one line of JSON; 64-bit numbers as decimal strings. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value, (_, of) => (typeof of === 'bigint' ? String(of) : of))
}

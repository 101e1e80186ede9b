/* What a command prints: text and JSON, for people, pipes and programs. */
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

/** Text from a file of someone else's, so that it cannot steer the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?')
}

/** Rows of as many cells each, as lines in which the cells stand below each other. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
}

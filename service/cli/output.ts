/* What a command prints: text and JSON, for people, pipes and programs. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

export { printable } from '../printable.ts'

/** The exit status of a program that SIGPIPE ended, as a shell reports it. */
export const BROKEN_PIPE = 128 + 13

const isBrokenPipe = (error: NodeJS.ErrnoException): boolean => error.code === 'EPIPE'

let stop = (): void => process.exit(BROKEN_PIPE)

/**
 * Ends the process without a message as soon as nobody reads its output (`| head -1`), as SIGPIPE ends other programs.
 * Text that goes through `print` is cut off instead, and the command ends with its own exit status.
 */
export function endOnBrokenPipe(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error) => {
      if (!isBrokenPipe(error)) throw error
      stop()
    })
}

/** Calls `other` on a broken pipe, in place of the end of the process. */
export function onBrokenPipe(other: () => void): void {
  stop = other
}

/**
 * Prints the rest of a command's output, in pieces as fast as they are read. Standard output stays open: if it is a socket,
 * the commands that follow share it.
 */
export async function print(pieces: Iterable<string>): Promise<void> {
  onBrokenPipe(() => {}) // a reader that has seen enough is not a failure
  await pipeline(Readable.from(pieces), process.stdout, { end: false }).catch((error) => {
    if (!isBrokenPipe(error)) throw error
  })
}

/** Lines as pieces of text for `print`. */
export function* linesOf(lines: Iterable<string>): Generator<string> {
  for (const line of lines) yield `${line}\n`
}

/**
 * Rows of equally many cells as aligned lines. Lines longer than `width` characters are cut at its end, so that only the
 * last column suffers.
 */
export function columns(
  rows: readonly (readonly string[])[],
  width = Number.POSITIVE_INFINITY,
): string[] {
  const widths: number[] = []
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows.map((row) => {
    const line = row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd()
    return line.length <= width ? line : `${line.slice(0, width - 1)}…`
  })
}

/** The number of a thing with its name: `1 kernel`, `2 kernels`. */
export function counted(count: number, name: string, plural = `${name}s`): string {
  return `${count} ${count === 1 ? name : plural}`
}

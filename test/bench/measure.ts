// Measures a command with its whole process tree, by GNU time: what wait4(2) accounts, children included.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Cost {
  /** seconds */
  wall: number
  /** seconds, user and system, all processes */
  cpu: number
  /** bytes, of the largest process */
  peak: number
  /** bytes written to files, all processes, in pages; pipes do not count */
  written: number
}

/** Runs `command` in `cwd`. Throws if it does not exit 0. */
export const measure = async (
  command: readonly [string, ...string[]],
  options: { cwd: string; env?: NodeJS.ProcessEnv },
): Promise<Cost> => {
  const scratch = mkdtempSync(join(tmpdir(), 'btfmill-bench-'))
  const report = join(scratch, 'time')
  try {
    const child = spawn('/usr/bin/time', ['-o', report, '-f', '%e %U %S %M %O', ...command], {
      ...options,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    if (status !== 0) throw new Error(`${command.join(' ')}: exit status ${status}`)
    const [wall = 0, user = 0, system = 0, peak = 0, blocks = 0] = readFileSync(report, 'utf8')
      .trim()
      .split(' ')
      .map(Number)
    return { wall, cpu: user + system, peak: peak * 1024, written: blocks * 512 }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Returns the options and the environment with which `npm run btfmill` starts node. */
export const nodeAsStarted = (): { options: string[]; env: NodeJS.ProcessEnv } => {
  const checkout = join(import.meta.dirname, '../..')
  const { scripts } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8'))
  const words: string[] = scripts.btfmill.split(' ')
  const set = words.flatMap((word) => {
    const [, name, value] = /^([A-Z_]+)=(.+)$/.exec(word) ?? []
    return name && value ? [[name, value.startsWith('./') ? join(checkout, value) : value]] : []
  })
  const options = words.filter((word) => word.startsWith('--'))
  return { options, env: { ...process.env, ...Object.fromEntries(set) } }
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** Formats a table: the first column aligned to the left, the others to the right. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  return rows.map(line).join('\n')
}

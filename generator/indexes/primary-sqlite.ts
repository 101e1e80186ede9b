/*
 * primary.sqlite, the form of an rpm-md index that yum used. A database file is dangerous input: it may have endless
 * views, values of a gigabyte, or data that crashes SQLite. So a subprocess with limits on memory and time reads it.
 * The subprocess runs this same file as a program and prints the entries as JSON.
 */
import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { GeneratorError } from '../error.ts'
import { withScratch } from '../scratch.ts'
import { type NamingRule, namingOf } from '../sources/naming.ts'
import { runChild } from '../subprocess.ts'
import type { RpmEntry } from './primary.ts'

const LIMITS = { seconds: 120, memory: 512 * 1024 ** 2 }
/** Packages that are read, and that are returned. */
const MAX_PACKAGES = 1_000_000
const MAX_MATCHES = 20_000

const Entries = Compile(
  Type.Array(
    Type.Object({
      name: Type.String(),
      arch: Type.String(),
      epoch: Type.String(),
      version: Type.String(),
      revision: Type.String(),
      path: Type.String(),
      base: Type.Optional(Type.String()),
      checksum: Type.Object({ type: Type.String(), hex: Type.String() }),
      size: Type.Number(),
    }),
  ),
)

/**
 * Reads a database from a stream and returns the packages that match the rules. Errors: `invalid_index`, `too_large`;
 * those of the stream.
 */
export async function readPrimarySqlite(
  source: Readable,
  rules: readonly NamingRule[],
  signal?: AbortSignal,
): Promise<RpmEntry[]> {
  return await withScratch(undefined, async (directory) => {
    const file = join(directory, 'primary.sqlite')
    await pipeline(source, createWriteStream(file, { flags: 'wx' }))
    const args = ['--no-warnings', import.meta.filename, file, JSON.stringify(rules)]
    const limits = { ...LIMITS, ...(signal && { signal }) }
    const { ended, status, stdout, stderr } = await runChild(process.execPath, args, limits)
    if (ended !== 'status' || status !== 0) {
      const why = ended === 'status' ? 'it cannot be read' : `reading it takes too much ${ended}`
      const { size } = await stat(file)
      const message = `invalid primary.sqlite (${size} bytes): ${why}`
      throw new GeneratorError('invalid_index', message, { log: stderr })
    }
    return parse(stdout.toString('utf8'))
  })
}

function parse(text: string): RpmEntry[] {
  try {
    const entries: unknown = JSON.parse(text)
    if (Entries.Check(entries)) return entries
  } catch {}
  throw new GeneratorError(
    'invalid_index',
    'invalid primary.sqlite: its rows do not have the expected columns',
  )
}

/**
 * Yields the rows that match the rules. `packages` must be a table: a view may run without end. Only the subprocess may
 * call it for files from elsewhere. Errors: those of SQLite.
 */
export function* query(file: string, rules: readonly NamingRule[]): Generator<RpmEntry> {
  const database = new DatabaseSync(file, { readOnly: true, allowExtension: false })
  database.exec('PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON')
  const [kind] = database
    .prepare("SELECT type FROM sqlite_schema WHERE name = 'packages' LIMIT 1")
    .all()
  if (kind?.type !== 'table') throw new Error('there is no table packages')
  const rows = database.prepare(
    `SELECT name, arch, epoch, version, release, location_href, location_base, checksum_type, pkgId, size_package
     FROM packages LIMIT ${MAX_PACKAGES}`,
  )
  const naming = namingOf(rules)
  for (const row of rows.iterate()) {
    const text = (name: string) => String(row[name] ?? '')
    const [arch, version, revision] = [text('arch'), text('version'), text('release')]
    const name = text('name')
    if (!naming({ name, arch, version, revision })) continue
    yield {
      name,
      arch,
      version,
      revision,
      epoch: text('epoch'),
      path: text('location_href'),
      ...(row.location_base ? { base: text('location_base') } : {}),
      checksum: { type: text('checksum_type'), hex: text('pkgId') },
      size: Number(row.size_package),
    }
  }
}

if (process.argv[1] === import.meta.filename) {
  const [file = '', rules = '[]'] = process.argv.slice(2)
  const found = query(file, JSON.parse(rules) as NamingRule[]).take(MAX_MATCHES)
  process.stdout.write(JSON.stringify([...found]))
}

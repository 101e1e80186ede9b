/*
 * The file of an index: SQLite in WAL mode, so that readers and one writer do not wait for each other. The file is derived
 * data. One that is damaged, or of another version of btfmill, is removed and made again; that is never an error.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { storeSecret } from './identities.ts'

/** "btfi": what `file` reads of a SQLite database (PRAGMA application_id). */
const APPLICATION = 0x62746669
/** Version of the tables and of the forms in them; any other is made again. */
const VERSION = 2
/** Milliseconds to wait for another writer. */
const BUSY = 10_000

const TABLES = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE kernels (
    key TEXT PRIMARY KEY, btf INTEGER NOT NULL, distro TEXT NOT NULL, version TEXT NOT NULL, arch TEXT NOT NULL,
    release TEXT NOT NULL, build TEXT, package TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE btfs (
    number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, parent INTEGER, came BLOB, went BLOB, failure TEXT
  );
  CREATE TABLE declarations (
    name TEXT NOT NULL, kind INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (name, kind)
  ) WITHOUT ROWID;
  CREATE TABLE blocks (number INTEGER PRIMARY KEY, declarations BLOB NOT NULL);
  CREATE TABLE elements (
    name TEXT NOT NULL, declaration INTEGER NOT NULL, PRIMARY KEY (name, declaration)
  ) WITHOUT ROWID;
  CREATE TABLE identities (btf INTEGER PRIMARY KEY, keys BLOB NOT NULL, digests BLOB NOT NULL, changed BLOB NOT NULL);
  CREATE TABLE keys (btf INTEGER PRIMARY KEY, keys BLOB NOT NULL, forms BLOB NOT NULL, declarations BLOB NOT NULL);
`

/** The file is no index, is damaged, or is of another version. */
export class UnusableIndex extends Error {
  override readonly name = 'UnusableIndex'
}

/** SQLITE_CORRUPT, SQLITE_NOTADB, and a table or column that should be there (SQLITE_ERROR). */
const DAMAGED: ReadonlySet<number> = new Set([11, 26, 1])

/** Calls `work`; what a damaged file makes it throw becomes an `UnusableIndex`. */
export function onFile<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (isDamage(error)) throw new UnusableIndex((error as Error).message, { cause: error })
    throw error
  }
}

function isDamage(error: unknown): boolean {
  if (error instanceof SyntaxError || error instanceof TypeError) return true // JSON; a form that is none
  const { code, errcode } = error as { code?: string; errcode?: number }
  if (code === 'ERR_SQLITE_ERROR') return DAMAGED.has((errcode ?? 0) & 0xff)
  return code?.startsWith('ZSTD_error') === true || code === 'ERR_BUFFER_TOO_LARGE'
}

/** Opens an index to read it. Errors: `UnusableIndex`, also if there is none. */
export function openToRead(path: string): DatabaseSync {
  let database: DatabaseSync
  try {
    database = new DatabaseSync(path, { readOnly: true })
  } catch (cause) {
    throw new UnusableIndex(`no index: ${(cause as Error).message}`, { cause })
  }
  try {
    onFile(() => {
      database.exec(`PRAGMA busy_timeout = ${BUSY}`)
      if (!isOurs(database)) throw new UnusableIndex('it is of another version')
    })
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** Opens an index to write it; makes an empty one where there is none, or none of this version. Errors: the system's. */
export function openToWrite(path: string): DatabaseSync {
  if (path !== ':memory:') mkdirSync(dirname(path), { recursive: true })
  try {
    return open(path)
  } catch (error) {
    if (!(error instanceof UnusableIndex)) throw error
    removeIndex(path)
    return open(path)
  }
}

/** Removes an index, and the files that SQLite has beside it. Errors: the system's. */
export function removeIndex(path: string): void {
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(path + suffix, { force: true })
}

function open(path: string): DatabaseSync {
  const database = new DatabaseSync(path)
  try {
    onFile(() => {
      database.exec(
        `PRAGMA busy_timeout = ${BUSY}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL`,
      )
      if (!isOurs(database)) create(database)
    })
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** Makes the tables of an empty file, unless another process has just made them. */
function create(database: DatabaseSync): void {
  database.exec('BEGIN IMMEDIATE')
  if (!isOurs(database)) {
    const { tables } = database.prepare('SELECT count(*) AS tables FROM sqlite_schema').get() as {
      tables: number
    }
    if (tables > 0) throw new UnusableIndex('it is of another version')
    database.exec(
      `${TABLES} PRAGMA application_id = ${APPLICATION}; PRAGMA user_version = ${VERSION}`,
    )
    storeSecret(database)
  }
  database.exec('COMMIT')
}

function isOurs(database: DatabaseSync): boolean {
  const pragma = (name: string) =>
    Object.values(database.prepare(`PRAGMA ${name}`).get() as Record<string, number>)[0]
  return pragma('application_id') === APPLICATION && pragma('user_version') === VERSION
}

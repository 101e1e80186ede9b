/*
 * The entry points of generator/ that take bytes from a mirror. For any bytes they give a value, or a GeneratorError
 * with a code of the list, other than `internal`. gpgv, pahole and decompressors in processes of their own are not
 * part of it. SQLite runs in a subprocess in production; here it is called directly, where every error is expected.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { GeneratorError } from '../../generator/error.ts'
import { parsePackages, parseRelease } from '../../generator/indexes/apt.ts'
import { parseListing } from '../../generator/indexes/directory-index.ts'
import { readPrimaryXml } from '../../generator/indexes/primary.ts'
import { query } from '../../generator/indexes/primary-sqlite.ts'
import { chooseIndex, packageOf, parseRepomd } from '../../generator/indexes/rpm-md.ts'
import type { ArchiveEntry } from '../../generator/packages/archive-entry.ts'
import { readCpio } from '../../generator/packages/cpio.ts'
import { readDeb } from '../../generator/packages/deb.ts'
import { openRpm } from '../../generator/packages/rpm.ts'
import { readTar } from '../../generator/packages/tar.ts'
import { FAILURE_CODES, type FailureCode } from '../../storage/index.ts'
import type { ArchiveSort } from './archive.ts'
import { Defect, type Visit } from './door.ts'
import type { Random } from './random.ts'

/** Maximum of unpacked bytes per package. */
const LIMIT = 16 << 20

/** Runs bytes through the entry points for this sort. Errors: `Defect`. */
export async function visitArchive(
  sort: ArchiveSort,
  bytes: Uint8Array,
  random: Random,
): Promise<Visit[]> {
  const visits: Visit[] = []
  const through = async <T>(door: string, pass: () => Promise<T> | T): Promise<T | undefined> => {
    try {
      const value = await settled(pass())
      visits.push({ door, outcome: 'value' })
      return value
    } catch (error) {
      if (!(error instanceof GeneratorError) || !isExpected(error.code))
        throw new Defect(door, error)
      visits.push({ door, outcome: error.code })
      return undefined
    }
  }
  const pieces = () => inPieces(random, bytes)
  const base = 'http://127.0.0.1/repo'
  const text = Buffer.from(bytes).toString()
  switch (sort) {
    case 'tar':
      await through('readTar', () => drain(random, readTar(pieces())))
      break
    case 'cpio':
      await through('readCpio', () => drain(random, readCpio(pieces())))
      break
    case 'deb':
      await through('readDeb', () => drain(random, readDeb(pieces(), LIMIT)))
      break
    case 'rpm': {
      const rpm = await through('openRpm', () => openRpm(pieces()))
      if (rpm) await through('Rpm.files', () => drain(random, rpm.files(rpm.payload, LIMIT)))
      break
    }
    case 'packages':
      await through('parsePackages', () => parsePackages(Readable.from(pieces()), () => true))
      break
    case 'release':
      await through('parseRelease', () => parseRelease(text, base, new Date(0)))
      break
    case 'repomd':
      await through('parseRepomd', async () =>
        chooseIndex(await parseRepomd(Buffer.from(bytes)), base),
      )
      break
    case 'primary': {
      const entries = await through('readPrimaryXml', () => readPrimaryXml(pieces(), () => true))
      for (const entry of (entries ?? []).slice(0, 16))
        await through('packageOf', () => packageOf(entry, base))
      break
    }
    case 'sqlite':
      await through('query', () => queryBytes(bytes))
      break
    case 'listing':
      await through('parseListing', () => parseListing(base, text))
      break
    default:
      sort satisfies never
  }
  return visits
}

/** Milliseconds until a promise that settles later counts as hanging. The machine may be busy. */
const HANG = 60_000

/** The value of a promise. Errors: its own, and one for a promise that does not settle. */
async function settled<T>(promise: Promise<T> | T): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it did not end within ${HANG} ms`)), HANG)
  })
  try {
    return await Promise.race([promise, hang])
  } finally {
    clearTimeout(timer)
  }
}

const isExpected = (code: FailureCode): boolean =>
  Object.hasOwn(FAILURE_CODES, code) && code !== 'internal'

/** The bytes in pieces of random lengths, as they arrive from a network. */
async function* inPieces(random: Random, bytes: Uint8Array): AsyncGenerator<Buffer> {
  const length = random.pick(
    [bytes.length || 1, 4096, 700, 61].filter((n) => bytes.length / n < 256),
  )
  for (let at = 0; at < bytes.length; at += length)
    yield Buffer.from(bytes.subarray(at, at + length))
}

/** Reads all entries, and the bodies of some. */
async function drain(random: Random, entries: AsyncIterable<ArchiveEntry>): Promise<void> {
  for await (const { body, regular } of entries) {
    if (!regular || random.once(3)) continue
    for await (const _ of body) if (random.once(50)) break
  }
}

function queryBytes(bytes: Uint8Array): number {
  const file = join(tmpdir(), `fuzz-${process.pid}.sqlite`)
  writeFileSync(file, bytes)
  try {
    const rules = [{ name: '^kernel-debuginfo$', release: '{version}-{release}.{arch}' }] as never
    return [...query(file, rules).take(100)].length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_SQLITE_ERROR' || error instanceof Error)
      throw new GeneratorError('invalid_index', (error as Error).message)
    throw error
  } finally {
    rmSync(file, { force: true })
  }
}

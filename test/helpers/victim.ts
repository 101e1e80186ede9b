// A writer for tests that kill it. It puts objects into a directory without end, by every kind of put, and prints the
// begin and the end of each put.
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { openDisk } from '../../storage/disk.ts'
import type { PutOptions, Store } from '../../storage/index.ts'

const CHUNK = 32 * 1024

/** An object that contains its own digest: 32 bytes of SHA-256, then the hashed bytes. */
export function makeObject(): { bytes: Buffer; digest: string } {
  const rest = randomBytes(Math.ceil(Math.random() * 10 * CHUNK))
  const digest = createHash('sha256').update(rest).digest()
  return { bytes: Buffer.concat([digest, rest]), digest: digest.toString('hex') }
}

/** The digest of an object; undefined if it is not whole. */
export function digestOf(bytes: Buffer): string | undefined {
  const digest = bytes.subarray(0, 32)
  const whole = createHash('sha256').update(bytes.subarray(32)).digest().equals(digest)
  return whole ? digest.toString('hex') : undefined
}

async function put(store: Store, key: string, options: PutOptions = {}): Promise<string> {
  const { bytes, digest } = makeObject()
  const pieces = function* () {
    for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK)
  }
  process.stdout.write(`begin ${key} ${digest}\n`)
  const { etag } = await store.put(key, Readable.from(pieces()), options)
  process.stdout.write(`done ${key} ${digest}\n`)
  return etag
}

async function putEndlessly(store: Store): Promise<never> {
  let { etag } = await store.head('swapped')
  for (let i = 0; ; i++) {
    await put(store, `plain/${i % 3}`)
    await put(store, `once/${process.pid}/${i}`, { ifAbsent: true })
    etag = await put(store, 'swapped', { ifMatch: etag })
  }
}

if (import.meta.main) await putEndlessly(await openDisk(process.argv[2]!))

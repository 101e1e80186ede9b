/* A store in memory, for tests and for a client's copy of the snapshot. It follows all rules of the other backends. */
import { type Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { clampRange, HashingStream, toReadable } from './body.ts'
import { StoreError } from './error.ts'
import { checkKey } from './name.ts'
import type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'

interface MemoryObject extends ObjectInfo {
  bytes: Buffer
}

/** Opens an empty store that lives as long as the process. */
export function openMemory(): Store {
  return new MemoryStore()
}

class MemoryStore implements Store {
  readonly url = 'memory:'
  readonly #entries = new Map<string, MemoryObject>()
  #version = 0

  async get(key: string, range?: ByteRange): Promise<StoredObject> {
    const { bytes, ...info } = this.#entry(key)
    const { start, end } = range ? clampRange(range, info.size) : { start: 0, end: info.size - 1 }
    return { ...info, body: toReadable(Buffer.from(bytes.subarray(start, end + 1))) }
  }

  async head(key: string): Promise<ObjectInfo> {
    const { bytes: _, ...info } = this.#entry(key)
    return info
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    options: PutOptions = {},
  ): Promise<ObjectInfo> {
    const source = toReadable(body)
    try {
      checkKey(key)
      return this.#keep(key, await collect(source, options), options)
    } finally {
      source.destroy()
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix)).sort()
    for (const key of keys) if (this.#entries.has(key)) yield await this.head(key)
  }

  async delete(key: string): Promise<void> {
    checkKey(key)
    this.#entries.delete(key)
  }

  #keep(key: string, bytes: Buffer, { ifAbsent, ifMatch }: PutOptions): ObjectInfo {
    const current = this.#entries.get(key)
    if ((ifAbsent && current) || (ifMatch !== undefined && current?.etag !== ifMatch)) {
      throw new StoreError(
        'precondition_failed',
        `${key} ${current ? 'has changed' : 'does not exist'}`,
      )
    }
    this.#version++
    const info = { key, size: bytes.length, etag: String(this.#version), modified: new Date() }
    this.#entries.set(key, { ...info, bytes })
    return info
  }

  #entry(key: string): MemoryObject {
    checkKey(key)
    const entry = this.#entries.get(key)
    if (!entry) throw new StoreError('not_found', `${key} does not exist`)
    return entry
  }
}

async function collect(source: Readable, { sha256, signal }: PutOptions): Promise<Buffer> {
  const chunks: Buffer[] = []
  const target = new Writable({
    write(chunk: Buffer, _, done) {
      chunks.push(Buffer.from(chunk))
      done()
    },
  })
  await pipeline(source, new HashingStream(sha256), target, { ...(signal && { signal }) })
  return Buffer.concat(chunks)
}

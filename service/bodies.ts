/*
 * BTF in the form in which it is sent, from memory, else from the store: read and compared with its digest once,
 * however many ask for it meanwhile. The store has zstd; the other forms are made of it.
 */
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { type Blob, readBlob, type Store, StoreError } from '../storage/index.ts'
import { ServiceError } from './error.ts'
import { Flights, Gate } from './flight.ts'
import type { Body, Memory } from './memory.ts'

/** In order of preference. */
export const ENCODINGS = ['zstd', 'gzip', 'identity'] as const
export type Encoding = (typeof ENCODINGS)[number]

/** So many blobs are read and decompressed at a time, each of some megabytes; the others wait. */
const READS = 8
const WAITING = 10_000

const FORMS: Readonly<Record<Encoding, (blob: Blob) => Buffer | Promise<Buffer>>> = {
  zstd: ({ compressed }) => compressed,
  gzip: ({ raw }) => promisify(gzip)(raw),
  identity: ({ raw }) => raw,
}

export class Bodies {
  readonly #store: Store
  readonly #memory: Memory
  readonly #reading = new Flights<Blob>()
  readonly #gate = new Gate(READS, WAITING)

  constructor(store: Store, memory: Memory) {
    this.#store = store
    this.#memory = memory
  }

  /** The BTF with that digest of its raw bytes. Errors: `unknown_blob`, `busy`, those of the store. */
  get(sha256: string, encoding: Encoding): Promise<Body> {
    return this.#memory.body(`${encoding} ${sha256}`, async () => {
      const blob = await this.#read(sha256)
      return { bytes: await FORMS[encoding](blob), sha256 }
    })
  }

  /** One read for all encodings. */
  #read(sha256: string): Promise<Blob> {
    return this.#reading.run(sha256, () =>
      this.#gate
        .run(() => readBlob(this.#store, sha256))
        .catch((error: unknown) => {
          if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
          throw new ServiceError('unknown_blob', `there is no BTF with SHA-256 ${sha256}`)
        }),
    )
  }
}

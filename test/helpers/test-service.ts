// A small service for tests: a store with records and real BTF, and a server on a free port of 127.0.0.1 that ends with its
// test.
import { type AddressInfo, connect } from 'node:net'
import type { Test } from 'tap'
import { request } from 'undici'
import { parseBtf } from '../../bpf/index.ts'
import { type AppOptions, buildApp } from '../../service/index.ts'
import {
  type BuildRecord,
  Catalog,
  openStore,
  putBlob,
  putRecord,
  type Store,
} from '../../storage/index.ts'
import { fixture } from './fixtures.ts'

/** Two different BTFs. */
export const RAW = { little: fixture('types-x86_64.btf'), big: fixture('types-s390x.btf') }

/** A record as a generation run writes it. */
export function recordOf(
  kernel: Partial<BuildRecord['kernel']>,
  rest: Partial<BuildRecord> = {},
): BuildRecord {
  const now = '2026-11-01T12:00:00.000Z'
  return {
    schema: 1,
    kernel: {
      distro: 'debian',
      version: '12',
      arch: 'x86_64',
      release: '6.1.0-1-amd64',
      ...kernel,
    },
    package: {
      name: 'linux-image-dbg',
      version: '6.1.1-1',
      url: 'http://127.0.0.1/a.deb',
      authenticated: 'index',
    },
    origin: 'pahole',
    tool: { name: 'pahole', version: '1.24', options: [], fingerprint: 'test' },
    createdAt: now,
    updatedAt: now,
    ...rest,
  }
}

/** Puts BTF into a store and gives the record's entry for it. */
export async function btfOf(store: Store, raw: Buffer): Promise<NonNullable<BuildRecord['btf']>> {
  const btf = parseBtf(raw)
  const { typeCount: types, byteOrder, pointerSize } = btf
  return { ...(await putBlob(store, raw)), types, kinds: btf.kinds(), byteOrder, pointerSize }
}

export interface TestService {
  url: string
  store: Store
  catalog: Catalog
}

/** Serves records; `records` puts their BTF into the store that it gets. */
export async function startTestService(
  t: Test,
  records: (store: Store) => Promise<BuildRecord[]> | BuildRecord[] = () => [],
  options: Partial<AppOptions> = {},
): Promise<TestService> {
  const home = options.store ?? (await openStore('memory:'))
  for (const record of await records(home)) await putRecord(home, record)
  const catalog = await Catalog.open(home)
  const app = await buildApp({ store: home, catalog, ...options })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, store: home, catalog }
}

export interface Answer {
  status: number
  headers: Record<string, string | undefined>
  bytes: Buffer
  /** the body as JSON; undefined for another type */
  json: Record<string, unknown> | undefined
}

/** Sends a request without an encoding of its own, and does not follow redirects. */
export async function ask(
  url: string,
  headers: Record<string, string> = {},
  method: 'GET' | 'HEAD' = 'GET',
): Promise<Answer> {
  const answer = await request(url, { headers, method })
  const bytes = Buffer.from(await answer.body.arrayBuffer())
  const isJson = /json\b/.test(String(answer.headers['content-type'])) && bytes.length > 0
  return {
    status: answer.statusCode,
    headers: answer.headers as Answer['headers'],
    bytes,
    json: isJson ? JSON.parse(bytes.toString()) : undefined,
  }
}

/** Sends raw text, which an HTTP client would correct, and gives all that comes back. */
export async function sendRaw(url: string, text: string): Promise<string> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  socket.end(text)
  let answer = ''
  for await (const piece of socket.setEncoding('latin1')) answer += piece
  return answer
}

/** Blocks and counts all reads of a store until `go` is called. */
export function slowly(store: Store) {
  const get = store.get.bind(store)
  const gate = Promise.withResolvers<void>()
  const counts = { started: 0, ended: 0 }
  store.get = async (key, range) => {
    counts.started++
    await gate.promise
    counts.ended++
    return await get(key, range)
  }
  return {
    counts,
    go: () => {
      store.get = get
      gate.resolve()
    },
  }
}

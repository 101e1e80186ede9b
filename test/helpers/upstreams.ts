// Upstreams for tests: a store of small kernels that pass the checks of what others send, and services that ask each other.
import type { Test } from 'tap'
import type { Config } from '../../service/config.ts'
import type { Available } from '../../service/kernel/lookup.ts'
import { type Kernel, openStore, putRecord, type Store } from '../../storage/index.ts'
import { nthBtf } from './packs.ts'
import { type FaultyServer, startProxy } from './proxy.ts'
import {
  type Answer,
  ask,
  btfOf,
  recordOf,
  startTestService,
  type TestService,
} from './test-service.ts'

export const BUILD_ID = 'aabbccddeeff00112233445566778899aabbccdd'

/** The nth kernel of a series of small kernels. */
export const kernelOf = (n: number): Kernel => ({
  ...{ distro: 'debian', version: '12', arch: 'i686', release: `6.1.0-${n + 1}-686` },
  buildId: `${n.toString(16).padStart(2, '0')}${BUILD_ID.slice(2)}`,
  unameVersion: `#1 SMP Debian 6.1.${n}-1`,
})

export const pathOf = (n: number): string => `debian/12/i686/${kernelOf(n).release}`

/** Puts a series of small kernels into a store, and returns their records. */
export async function putKernels(
  store: Store,
  count: number,
  rawOf: (n: number) => Buffer = nthBtf,
): Promise<Available[]> {
  const records: Available[] = []
  for (let n = 0; n < count; n++) {
    const btf = await btfOf(store, rawOf(n))
    const from = { ...recordOf({}).package, version: `6.1.${n}-1` }
    const record = recordOf(kernelOf(n), { btf, package: from, embedded: false })
    await putRecord(store, record)
    records.push(record as Available)
  }
  return records
}

export interface Edge extends TestService {
  /** GETs the BTF of a kernel by its path */
  get(path: string, headers?: Record<string, string>): Promise<Answer>
}

/** A service without kernels that asks upstreams, and waits long: the machine may be busy. */
export async function startEdge(
  t: Test,
  upstream: readonly string[],
  settings: Partial<Config> = {},
): Promise<Edge> {
  const service = await startTestService(t, undefined, {
    settings: { upstream: [...upstream], upstreamWait: 60, ...settings },
  })
  return { ...service, get: (path, headers) => ask(`${service.url}/v1/btf/${path}`, headers) }
}

/** A service with `count` small kernels behind a proxy that counts, and may fail. */
export async function startUpstream(
  t: Test,
  count: number,
): Promise<{ records: Available[]; proxy: FaultyServer; store: Store }> {
  const store = await openStore('memory:')
  const records = await putKernels(store, count)
  const { url } = await startTestService(t, undefined, { store })
  return { records, proxy: await startProxy(t, url), store }
}

/*
 * Another btfmill as upstream. It finds the kernel as it does for any client, with parents and generation. Then its
 * records of that BTF are read, so that build-id, `uname -v`, package and tool survive. Of several builds with different
 * BTF all are taken, and the choice between them is made here. Modules and names of functions are left to `mirror`.
 */
import type { IncomingHttpHeaders } from 'node:http'
import {
  ANY,
  type BuildRecord,
  buildOf,
  type KernelName,
  recordKey,
  StoreError,
  type TakenFrom,
  toRecord,
} from '../../storage/index.ts'
import type { LookupChoice } from '../kernel/lookup.ts'
import { parseName, pathOf } from '../kernel/name.ts'
import type { UpstreamAddress } from '../upstream-address.ts'
import { UpstreamError } from './error.ts'
import type { UpstreamAnswer } from './get.ts'
import {
  type GetBelow,
  getterOf,
  MAX_SENT,
  type SentBtf,
  type UpstreamAsk,
  type UpstreamSource,
} from './source.ts'

/** Bytes of the records of one kernel. */
const MAX_RECORDS = 1024 * 1024
/** The most builds of a kernel with different BTF that are taken. */
const MAX_BUILDS = 8
/** Services that a record was taken from, of which it tells. */
const MAX_CHAIN = 8
/** Seconds until a kernel that is being made is asked for again. */
const RETRY_AFTER = 5

export class BtfmillUpstream implements UpstreamSource {
  readonly #get: GetBelow
  readonly #address: UpstreamAddress
  readonly #onService: (id: string) => void

  /** `onService` is told the id by which the service takes part in `via`. */
  constructor(address: UpstreamAddress, onService: (id: string) => void = () => {}) {
    this.#address = address
    this.#get = getterOf(address)
    this.#onService = onService
  }

  async find(ask: UpstreamAsk): Promise<SentBtf[]> {
    const { kernel, choice, signal, via } = ask
    const path = kernel ? `${pathOf(kernel)}${queryOf(choice)}` : `build-id/${choice.build}`
    const answer = await this.#get(`v1/btf/${path}`, {
      signal,
      limit: MAX_SENT,
      headers: { via, 'accept-encoding': 'zstd' },
    })
    const { 'btfmill-service': service } = answer.headers
    if (typeof service === 'string' && /^[0-9a-f]{16}$/.test(service)) this.#onService(service)
    if (answer.status === 200) return [await this.#found(ask, answer)]
    const problem = problemOf(answer)
    switch (problem.code) {
      case 'pending':
        throw new UpstreamError('pending', `${this.#address.base} makes this BTF`, {
          retryAfter: Number(answer.headers['retry-after']) || RETRY_AFTER,
        })
      case 'ambiguous':
        return await this.#builds(ask, problem.builds)
      case 'unauthorized':
      case 'forbidden':
        throw this.#error('refused', `answers ${problem.code}`)
      case undefined:
        throw this.#error('invalid_response', `answers ${answer.status} without a problem document`)
      default:
        return [] // it does not have the kernel, or no name of that kind
    }
  }

  /** The BTF of an answer, with the records that name it. */
  async #found(ask: UpstreamAsk, { headers, body }: UpstreamAnswer): Promise<SentBtf> {
    const { 'btfmill-kernel': name, 'content-encoding': encoding = 'identity' } = headers
    const sha256 = digestOf(headers)
    const kernel = typeof name === 'string' ? nameIn(name) : undefined
    if (!kernel || sha256 === undefined || !(encoding === 'zstd' || encoding === 'identity'))
      throw this.#error('invalid_response', 'sends BTF without its name, digest or encoding')
    const records = (await this.#records(ask, kernel)).filter(({ btf }) => btf?.sha256 === sha256)
    if (records.length === 0)
      throw this.#error('invalid_response', `has no record of the BTF ${sha256} that it sends`)
    return this.#sent(ask, { bytes: body, encoding, sha256, records })
  }

  /** The BTF of all builds of a kernel. */
  async #builds(ask: UpstreamAsk, listed: unknown): Promise<SentBtf[]> {
    const first = Array.isArray(listed) ? (listed[0] as KernelName | undefined) : undefined
    const name = first && [first.distro, first.version, first.arch, first.release].join('/')
    const kernel = name === undefined ? undefined : nameIn(name)
    if (!kernel) throw this.#error('invalid_response', 'lists no builds')
    const records = (await this.#records(ask, kernel)).filter(({ btf }) => btf)
    const digests = [...new Set(records.map(({ btf }) => btf!.sha256))].slice(0, MAX_BUILDS)
    const sent: SentBtf[] = []
    for (const sha256 of digests) {
      const { status, headers, body } = await this.#get(`v1/btf/sha256/${sha256}`, {
        signal: ask.signal,
        limit: MAX_SENT,
        headers: { via: ask.via, 'accept-encoding': 'zstd' },
      })
      const { 'content-encoding': encoding = 'identity' } = headers
      if (status !== 200 || !(encoding === 'zstd' || encoding === 'identity'))
        throw this.#error('invalid_response', `does not send the BTF ${sha256} of its record`)
      const own = records.filter(({ btf }) => btf!.sha256 === sha256)
      sent.push(this.#sent(ask, { bytes: body, encoding, sha256, records: own }))
    }
    return sent
  }

  #sent(
    { kernel, choice }: UpstreamAsk,
    {
      records,
      ...sent
    }: Pick<SentBtf, 'bytes' | 'encoding'> & {
      sha256: string
      records: BuildRecord[]
    },
  ): SentBtf {
    const build = choice.build?.toLowerCase()
    const isBuild = (record: BuildRecord) => build !== undefined && record.kernel.buildId === build
    if (!kernel && !records.some(isBuild))
      throw this.#error('kernel_mismatch', `sends another build than ${build}`)
    for (const record of kernel ? records : []) {
      const isSame =
        record.kernel.release === kernel!.release &&
        (kernel!.arch === ANY || record.kernel.arch === kernel!.arch)
      if (!isSame && !isBuild(record))
        throw this.#error(
          'kernel_mismatch',
          `sends ${record.kernel.arch} ${record.kernel.release} for ${kernel!.arch} ${kernel!.release}`,
        )
    }
    const from = { kind: 'btfmill', url: this.#address.base, vouched: 'digest' } as const
    return {
      ...sent,
      arch: records[0]!.kernel.arch,
      records: (btf) => records.map((record) => takenRecord({ ...record, btf }, from)),
    }
  }

  /** The records of a kernel that the upstream publishes. */
  async #records({ signal, via }: UpstreamAsk, kernel: KernelName): Promise<BuildRecord[]> {
    const { status, body } = await this.#get(`v1/kernels/${pathOf(kernel)}`, {
      signal,
      limit: MAX_RECORDS,
      headers: { via },
    })
    if (status !== 200)
      throw this.#error('invalid_response', `answers ${status} for a kernel whose BTF it sends`)
    try {
      const { builds } = JSON.parse(body.toString('utf8')) as { builds: unknown[] }
      return builds.map(publishedRecord)
    } catch (cause) {
      const why = (cause as Error).message
      throw this.#error('invalid_response', `sends an invalid record: ${why}`)
    }
  }

  #error(code: UpstreamError['code'], what: string): UpstreamError {
    return new UpstreamError(code, `${this.#address.base} ${what}`)
  }
}

/** A record as `/v1/kernels` shows it. Errors: those of `toRecord`. */
function publishedRecord(listed: unknown): BuildRecord {
  // a failure is published in part, and its reason is nothing that could be tried again here
  const { state: _, links: __, failure: ___, ...record } = listed as BuildRecord & Published
  return toRecord(recordKey(record.kernel, buildOf(record)), record)
}

interface Published {
  state: unknown
  links: unknown
}

/** The record of a build as it is kept here, with what the service vouches for before what it has from others. */
export function takenRecord(
  record: BuildRecord,
  from: Omit<TakenFrom, 'takenAt'>,
  options: { complete?: boolean } = {},
): BuildRecord {
  const { modules, wantedModules, moduleFailures, symbols, inlinedFailure, ...rest } = record
  const { failure: _, takenFrom: before = [], ...kept } = rest
  const takenAt = new Date().toISOString()
  return {
    ...kept,
    ...(options.complete && {
      ...(modules && { modules }),
      ...(wantedModules && { wantedModules }),
      ...(moduleFailures && { moduleFailures }),
      ...(symbols && { symbols }),
      ...(inlinedFailure && { inlinedFailure }),
    }),
    takenFrom: [{ ...from, takenAt }, ...before].slice(0, MAX_CHAIN),
  }
}

function queryOf({ build, unameVersion, like, codename }: LookupChoice): string {
  const query = new URLSearchParams({
    ...(build !== undefined && { build }),
    ...(build === undefined && unameVersion !== undefined && { 'uname-version': unameVersion }),
    ...(like !== undefined && { like }),
    ...(codename !== undefined && { codename }),
  })
  return query.size > 0 ? `?${query}` : ''
}

/** The SHA-256 of the raw bytes in an entity tag. */
const digestOf = ({ etag }: IncomingHttpHeaders): string | undefined =>
  /^"([0-9a-f]{64})(?:-\w+)?"$/.exec(etag ?? '')?.[1]

function nameIn(text: string): KernelName | undefined {
  try {
    return parseName(text)
  } catch (error) {
    if (error instanceof StoreError) return undefined
    throw error
  }
}

function problemOf({ body }: UpstreamAnswer): { code?: string; builds?: unknown } {
  try {
    const { code, builds } = Object(JSON.parse(body.toString('utf8')))
    return typeof code === 'string' ? { code, builds } : {}
  } catch {
    return {} // an error page
  }
}

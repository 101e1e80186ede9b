/*
 * Requests for the BTF of a kernel, on all routes: the lookup; for a kernel without BTF the upstreams, then an on-demand
 * generation or a counted miss.
 */
import type { FastifyRequest } from 'fastify'
import {
  countedNameOf,
  type Failure,
  type KernelHints,
  type KernelName,
  parentsOf,
} from '../../storage/index.ts'
import type { Wait } from '../demand/demand.ts'
import { ServiceError } from '../error.ts'
import { type Available, type LookupChoice, lookUp, lookUpBuild } from '../kernel/lookup.ts'
import type { WantedBtf } from '../upstream/source.ts'
import type { UpstreamFailure } from '../upstream/upstreams.ts'
import type { Context } from './context.ts'
import { callerOf, mayGenerate } from './requester.ts'

/**
 * The record with a kernel's BTF. Errors: `pending`, with the job's URL if it is generated; `upstream_failed` with the
 * reasons; those of `lookUp`, `Upstreams.request` and `Demand.request`.
 */
export async function resolveBtf(
  context: Context,
  request: FastifyRequest,
  kernel: KernelName,
  choice: LookupChoice = {},
): Promise<Available> {
  try {
    return await lookUp(context.catalog, kernel, choice)
  } catch (error) {
    if (!(error instanceof ServiceError) || !isMiss(error)) throw error
    const find = () => lookUp(context.catalog, kernel, choice)
    const found = await askUpstreams(context, request, { kernel, choice }, find)
    if ('record' in found) return found.record
    const miss = found.failures ? upstreamFailed(error, found.failures) : error
    const wait = await waitFor(context, request, kernel, choice, error, miss)
    throw new ServiceError('pending', `the BTF of ${kernel.release} is being generated`, {
      details: { job: `/v1/jobs/${wait.id}`, retryAfter: wait.retryAfter },
    })
  }
}

/**
 * The record with a build-id, given in hex. Without a name there is nothing to generate or to count, so only upstreams are
 * asked for what is missing. Errors: `pending`; `upstream_failed` with the reasons; those of `lookUpBuild` and
 * `Upstreams.request`.
 */
export async function resolveBuild(
  context: Context,
  request: FastifyRequest,
  buildId: string,
  choice: LookupChoice = {},
): Promise<Available> {
  const find = () => lookUpBuild(context.catalog, buildId, choice)
  try {
    return find()
  } catch (error) {
    if (!(error instanceof ServiceError) || !isMiss(error)) throw error
    const found = await askUpstreams(context, request, { choice: { build: buildId } }, find)
    if ('record' in found) return found.record
    throw found.failures ? upstreamFailed(error, found.failures) : error
  }
}

/**
 * Resolves BTF for clients of other services: they take every 2xx for success and would store a 202's problem document as
 * BTF. Errors: those of `resolve`, with `unavailable` in place of `pending`.
 */
export async function forDropIn(resolve: Promise<Available>): Promise<Available> {
  try {
    return await resolve
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code !== 'pending') throw error
    throw new ServiceError('unavailable', error.message, { details: error.details })
  }
}

/** A record with a kernel's BTF, and whether it is partial. */
export interface ResolvedBtf {
  record: Available
  partial: boolean
}

/**
 * The record with a kernel's BTF; if there is none and the request allows it, that with partial BTF, made from headers. The
 * whole BTF is generated meanwhile, and the miss counted, as for any other request. Errors: those of `resolveBtf`.
 */
export async function resolveWithPartial(
  context: Context,
  request: FastifyRequest,
  kernel: KernelName,
  choice: LookupChoice,
  allowed: boolean,
): Promise<ResolvedBtf> {
  try {
    return { record: await resolveBtf(context, request, kernel, choice), partial: false }
  } catch (error) {
    const isAway = error instanceof ServiceError && (isMiss(error) || error.code === 'pending')
    if (!allowed || !isAway) throw error
    const { newest = false } = choice
    const record = await lookUp(context.partial.catalog, kernel, { ...choice, newest }).catch(
      () => undefined,
    )
    if (!record) throw error
    return { record, partial: true }
  }
}

const textOf = ({ kernel, choice }: WantedBtf): string =>
  kernel ? kernel.release : `the build-id ${choice.build}`

/**
 * The record of BTF that an upstream has, as `find` finds it then; otherwise why none of them has sent any. Errors:
 * `pending`, `busy`; those of `find`.
 */
async function askUpstreams(
  { upstreams }: Context,
  request: FastifyRequest,
  wanted: WantedBtf,
  find: () => Promise<Available> | Available,
): Promise<{ record: Available } | { failures?: readonly UpstreamFailure[] }> {
  if (!upstreams) return {}
  const outcome = await upstreams.request(wanted, request.headers.via)
  switch (outcome.kind) {
    case 'none':
      return {}
    case 'failed':
      return { failures: outcome.failures }
    case 'pending':
      throw new ServiceError('pending', `upstreams are asked for the BTF of ${textOf(wanted)}`, {
        details: { retryAfter: outcome.retryAfter },
      })
    case 'taken':
      try {
        return { record: await find() }
      } catch (error) {
        if (error instanceof ServiceError && isMiss(error)) return {} // it has another build
        throw error
      }
    default:
      return outcome satisfies never
  }
}

function upstreamFailed(miss: ServiceError, upstreams: readonly UpstreamFailure[]): ServiceError {
  const reasons = upstreams.map(({ message }) => message).join('; ')
  const message = `${miss.message}, and upstreams did not send it: ${reasons}`
  return new ServiceError('upstream_failed', message, { details: { upstreams } })
}

/** The generation to wait for; without one, counts the miss. Errors: `miss`; those of `Demand.request`. */
async function waitFor(
  { misses, onDemand, settings }: Context,
  request: FastifyRequest,
  kernel: KernelName,
  hints: KernelHints,
  known: ServiceError,
  miss: ServiceError,
): Promise<Wait> {
  try {
    const caller = callerOf(request)
    for (const name of isDue(known) ? generatedNamesOf(kernel, hints) : []) {
      const wait = onDemand?.request(name, { caller, mayGenerate: mayGenerate(request, settings) })
      if (wait) return wait
    }
    throw miss
  } catch (error) {
    await misses.count(countedNameOf(kernel, hints))
    throw error
  }
}

/** The names under which a source may have a kernel, in the order in which a lookup takes them. */
function generatedNamesOf(kernel: KernelName, hints: KernelHints): KernelName[] {
  const counted = countedNameOf(kernel, hints)
  const others = parentsOf(kernel, hints).flatMap(({ distro, version }) =>
    version === undefined ? [] : [{ ...kernel, distro, version }],
  )
  const isOther = (name: KernelName) =>
    name.distro !== counted.distro || name.version !== counted.version
  return [counted, ...others.filter(isOther)]
}

const isMiss = ({ code }: ServiceError): boolean =>
  code === 'unknown_kernel' || code === 'generation_failed'

/** Tells whether generation may be tried: a failed one has a time for its next attempt, or none. */
function isDue({ details }: ServiceError): boolean {
  const failure = details.failure as Pick<Failure, 'retryAt'> | undefined
  if (!failure) return true
  return failure.retryAt !== null && new Date(failure.retryAt) <= new Date()
}

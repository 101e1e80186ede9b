/*
 * What every door does for a request for a kernel: looks up its BTF, and where there is none counts that, or says that
 * it is being made.
 */
import type { FastifyRequest } from 'fastify'
import type { Failure, KernelName } from '../../storage/index.ts'
import type { Wait } from '../demand/demand.ts'
import { ServiceError } from '../error.ts'
import { type Available, type BuildChoice, lookUp } from '../kernel/lookup.ts'
import type { Context } from './context.ts'
import { callerOf, mayGenerate } from './requester.ts'

/** The record whose BTF answers for a kernel. Errors: those of `lookUp` and of `Demand.request`, and `pending` with the job. */
export async function resolveBtf(
  context: Context,
  request: FastifyRequest,
  kernel: KernelName,
  choice: BuildChoice = {},
): Promise<Available> {
  try {
    return await lookUp(context.catalog, kernel, choice)
  } catch (error) {
    if (!(error instanceof ServiceError) || !isMiss(error)) throw error
    const wait = await waitFor(context, request, kernel, error)
    throw new ServiceError('pending', `the BTF of ${kernel.release} is being made`, {
      details: { job: `/v1/jobs/${wait.id}`, retryAfter: wait.retryAfter },
    })
  }
}

/**
 * The same for clients that are not ours: they take every 2xx for what they asked for, and would keep a problem document
 * as BTF. Errors: those of `answerFor`, with `unavailable` for `pending`.
 */
export async function resolveBtfForDropIn(
  ...[context, request, kernel, choice]: Parameters<typeof resolveBtf>
): Promise<Available> {
  try {
    return await resolveBtf(context, request, kernel, choice)
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code !== 'pending') throw error
    throw new ServiceError('unavailable', error.message, { details: error.details })
  }
}

/** The generation to wait for; where there is none, the miss is counted. Errors: `miss`, and those of `Demand.request`. */
async function waitFor(
  { misses, onDemand, settings }: Context,
  request: FastifyRequest,
  kernel: KernelName,
  miss: ServiceError,
): Promise<Wait> {
  try {
    const wait = isDue(miss)
      ? onDemand?.request(kernel, {
          caller: callerOf(request),
          mayGenerate: mayGenerate(request, settings),
        })
      : undefined
    if (wait) return wait
    throw miss
  } catch (error) {
    await misses.count(kernel)
    throw error
  }
}

const isMiss = ({ code }: ServiceError): boolean =>
  code === 'unknown_kernel' || code === 'generation_failed'

/** Whether it may be tried: what failed has its time for that, or none. */
function isDue({ details }: ServiceError): boolean {
  const failure = details.failure as Pick<Failure, 'retryAt'> | undefined
  if (!failure) return true
  return failure.retryAt !== null && new Date(failure.retryAt) <= new Date()
}

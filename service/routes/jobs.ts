/*
 * /v1/jobs: the progress of a generation, as JSON, or as server-sent events until it ends. Each event has the complete state
 * and its name. A slow reader gets fewer events.
 */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type, { type Static } from 'typebox'
import { Quota } from '../concurrency.ts'
import type { Demand } from '../demand/demand.ts'
import { Generation, isEnded } from '../demand/generation.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { callerOf, disconnectSignal } from '../http/requester.ts'
import { problems } from '../http/schema.ts'
import { pathOf } from '../kernel/name.ts'
import { toPublicFailure } from '../kernel/public-record.ts'

const EVENTS = 'text/event-stream'
/** Milliseconds without an event after which a comment keeps the connection alive. */
const KEEP_ALIVE_INTERVAL = 15_000
/** Least milliseconds between two events. */
const MIN_INTERVAL = 200
/** Clients that may read events at a time. */
const MAX_WATCHERS = 2000

const Params = Type.Object({ id: Type.String({ pattern: '^[\\w-]{1,64}$' }) })
const JobStatus = Type.Object({
  ...Generation.properties,
  links: Type.Object({ btf: Type.String() }),
})
/** The two forms of the response, chosen by the Accept header. */
const FORMS = {
  content: {
    'application/json': { schema: JobStatus },
    [EVENTS]: { schema: Type.Unsafe<Readable>({ type: 'string' }) },
  },
}

export const jobRoutes =
  ({ onDemand }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    if (!onDemand) return
    const { generator } = onDemand
    const stopping = new AbortController()
    app.addHook('preClose', async () => stopping.abort())
    const watchers = new Quota(
      MAX_WATCHERS,
      `too many clients (${MAX_WATCHERS}) watch generations`,
      MAX_WATCHERS / 2,
    )

    app.get(
      '/v1/jobs/:id',
      {
        schema: {
          tags: ['Kernels'],
          summary: 'The progress of a generation, as JSON or server-sent events',
          params: Params,
          response: { 200: FORMS, ...problems('invalid_request', 'unknown_job', 'busy') },
        },
      },
      async (request, reply) => {
        const { id } = request.params
        const generation = generator.get(id)
        if (!generation) throw new ServiceError('unknown_job', `no generation with the id ${id}`)
        reply.headers({ 'cache-control': 'no-store', vary: 'accept' })
        if (!request.headers.accept?.includes(EVENTS)) {
          if (isEnded(generation)) await onDemand.settled(id)
          return reply.send(jobOf(generation))
        }
        reply.raw.once('close', watchers.take(callerOf(request)))
        const signal = AbortSignal.any([disconnectSignal(reply), stopping.signal])
        reply.header('x-accel-buffering', 'no').type(EVENTS)
        return reply.send(Readable.from(eventsOf(onDemand, id, signal)))
      },
    )
  }

function jobOf({ packages, failure, ...generation }: Generation): Static<typeof JobStatus> {
  return {
    ...generation,
    packages: packages.map(({ size, ...rest }) => ({
      ...rest,
      ...(size !== undefined && { size }),
    })),
    ...(failure && { failure: toPublicFailure(failure) }),
    links: { btf: `/v1/btf/${pathOf(generation.kernel)}` },
  }
}

/** The server-sent events of a generation, until it ends or the signal aborts. */
async function* eventsOf(
  onDemand: Demand,
  id: string,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const changes = onDemand.generator.watch(id, signal)[Symbol.asyncIterator]()
  for (let next = changes.next(); ; ) {
    const seen = await Promise.race([next, pause(KEEP_ALIVE_INTERVAL, signal)])
    if (signal.aborted || seen?.done) return
    if (!seen) {
      yield ': keep-alive\n\n'
      continue
    }
    const generation = seen.value
    if (isEnded(generation)) await onDemand.settled(id)
    yield `event: ${generation.state}\ndata: ${JSON.stringify(jobOf(generation))}\n\n`
    if (isEnded(generation)) return
    await pause(MIN_INTERVAL, signal)
    next = changes.next()
  }
}

/** Resolves after a time, or when the signal aborts. */
const pause = (milliseconds: number, signal: AbortSignal): Promise<undefined> =>
  sleep(milliseconds, undefined, { signal, ref: false }).catch(() => undefined)

/* The HTTP service as a value: routes over a store and its catalog, not yet listening. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply } from 'fastify'
import { btfRoutes } from './btf.ts'
import type { Context } from './context.ts'
import { ServiceError } from './error.ts'
import { healthRoutes } from './health.ts'
import { kernelRoutes } from './kernels.ts'
import { registerProblems, sendBroken, sendProblem } from './problem.ts'
import { snapshotRoutes } from './snapshot.ts'

export interface AppOptions extends Context {
  logger?: FastifyBaseLogger
}

/** Limits on what a stranger may send: bytes of a body, characters of a part of an address, milliseconds. */
const LIMITS = {
  bodyLimit: 64 * 1024,
  maxParamLength: 512,
  requestTimeout: 30_000,
  keepAliveTimeout: 65_000,
}

export function buildApp({ logger, ...context }: AppOptions): FastifyInstance {
  const app = fastify({
    ...(logger ? { loggerInstance: logger } : { logger: false }),
    bodyLimit: LIMITS.bodyLimit,
    requestTimeout: LIMITS.requestTimeout,
    keepAliveTimeout: LIMITS.keepAliveTimeout,
    routerOptions: { maxParamLength: LIMITS.maxParamLength },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // who is connected while it stops still gets an answer
    clientErrorHandler: sendBroken,
    frameworkErrors: (error, _, reply) => {
      sendProblem(reply as FastifyReply, new ServiceError('bad_request', error.message))
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  registerProblems(app)
  app.register(btfRoutes(context))
  app.register(kernelRoutes(context))
  app.register(snapshotRoutes(context))
  app.register(healthRoutes(context))
  return app
}

/*
 * The HTTP service as a value: routes over a store and its catalog, not yet listening. Each feature is a plugin in a
 * file of its own, and a line in ROUTES; what it works with is in the context.
 */
import type { FastifyPluginAsyncTypebox, TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply } from 'fastify'
import { btfRoutes } from './btf.ts'
import { type Context, type ContextOptions, openContext } from './context.ts'
import { collectDocument, documentRoutes } from './document.ts'
import { ServiceError } from './error.ts'
import { healthRoutes } from './health.ts'
import { kernelRoutes } from './kernels.ts'
import { registerProblems, sendBroken, sendProblem } from './problem.ts'
import { snapshotRoutes } from './snapshot.ts'

export interface AppOptions extends ContextOptions {
  logger?: FastifyBaseLogger
}

/** Limits on what a stranger may send: bytes of a body, characters of a part of an address, milliseconds. */
const LIMITS = {
  bodyLimit: 64 * 1024,
  maxParamLength: 512,
  requestTimeout: 30_000,
  keepAliveTimeout: 65_000,
}

const ROUTES: readonly ((context: Context) => FastifyPluginAsyncTypebox)[] = [
  btfRoutes,
  kernelRoutes,
  snapshotRoutes,
  healthRoutes,
  documentRoutes,
]

/** Puts the service together; closing it ends all that it started. Errors: those of `openContext`. */
export async function buildApp({ logger, ...options }: AppOptions): Promise<FastifyInstance> {
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
  const context = await openContext(options)
  app.addHook('onClose', () => context.close())
  registerProblems(app)
  collectDocument(app)
  for (const routes of ROUTES) app.register(routes(context))
  return app
}

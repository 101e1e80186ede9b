/*
 * /openapi.json, the OpenAPI document of all routes, and /docs, the page that shows it. The page loads nothing from other
 * hosts.
 */
import swagger from '@fastify/swagger'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import scalar from '@scalar/fastify-api-reference'
import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import { problems } from '../http/schema.ts'

/** The page may run scripts of this service, and inline scripts and styles. */
const PAGE_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"

/** Collects the schemas of all routes registered later. */
export function collectDocument(app: FastifyInstance): void {
  app.register(swagger, {
    transform: ({ schema: { form, ...schema }, url }) => ({
      schema: { ...schema, ...(form && { body: form }) },
      url,
    }),
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'btfmill',
        version: '1',
        description: 'BTF for kernels that were built without it.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: '/' }],
      components: {
        securitySchemes: {
          token: {
            type: 'http',
            scheme: 'bearer',
            description: 'Needed to generate BTF, and to read if the operator requires it.',
          },
        },
      },
      security: [{}, { token: [] }],
      tags: [
        { name: 'BTF', description: 'The BTF of a kernel, by name, build-id or digest.' },
        {
          name: 'Objects',
          description: 'Minimized BTF and load checks for BPF objects.',
        },
        {
          name: 'Types',
          description:
            'All types, members and functions over all kernels, from an index. While it is made, these routes respond 503.',
        },
        { name: 'Kernels', description: 'Records, misses and generations of kernels.' },
        { name: 'Packs', description: 'Files with the BTF of many kernels.' },
        { name: 'Operations', description: 'Health, metrics and this document.' },
        {
          name: 'Drop-ins',
          description:
            'Paths that clients of other services request. If a kernel has several builds with different BTF, they respond 409 like all routes. With the base URL `/newest` they choose the newest build.',
        },
      ],
    },
  })
}

export const documentRoutes = (): FastifyPluginAsyncTypebox => async (app) => {
  app.get(
    '/openapi.json',
    {
      schema: {
        tags: ['Operations'],
        summary: 'This document',
        response: {
          200: Type.Unsafe<object>({ type: 'object', additionalProperties: true }),
          ...problems(),
        },
      },
    },
    async () => app.swagger(),
  )
  app.addHook('onRequest', (request, reply, done) => {
    if (request.url.startsWith('/docs')) reply.header('content-security-policy', PAGE_POLICY)
    done()
  })
  await app.register(scalar, {
    routePrefix: '/docs',
    configuration: {
      url: '/openapi.json',
      // both would send requests to other hosts
      withDefaultFonts: false,
      telemetry: false,
      hideClientButton: true,
      showDeveloperTools: 'never',
      agent: { disabled: true },
      mcp: { disabled: true },
    },
  })
}

/*
 * What the routes say of themselves: their schemas as /openapi.json, and that as a page to read at /docs. All of the
 * page comes from here; it asks no other host.
 */
import swagger from '@fastify/swagger'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import scalar from '@scalar/fastify-api-reference'
import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import { problems } from '../http/schema.ts'

/** The page may run what comes from here, and styles that it makes. */
const PAGE_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"

/** Collects what routes say that are registered after it. */
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
            description: 'Where the operator wants one to read, and to have BTF made.',
          },
        },
      },
      security: [{}, { token: [] }],
      tags: [
        { name: 'BTF', description: 'The bytes, by whatever is known of a kernel.' },
        {
          name: 'Objects',
          description: 'What BPF objects need of kernels, and where they would load.',
        },
        { name: 'Kernels', description: 'What is known of kernels.' },
        { name: 'Operations', description: 'How the service does.' },
        {
          name: 'Drop-ins',
          description:
            'Addresses that clients of other services have built in. Where a kernel has several builds whose BTF differs, they answer 409, as all others do; with the base address `/newest` they take the newest.',
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
      ...{ withDefaultFonts: false, telemetry: false }, // which others' hosts would see
      ...{
        hideClientButton: true,
        showDeveloperTools: 'never',
        agent: { disabled: true },
        mcp: { disabled: true },
      },
    },
  })
}

/*
 * Files that a client uploads as a multipart form, in memory and with limits. The body of a refused request is read to its
 * end, within the request timeout: a client that is still sending would not see the response.
 */
import { posix } from 'node:path'
import multipart from '@fastify/multipart'
import type { FastifyError, FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type TSchema } from 'typebox'
import type { Quota } from '../concurrency.ts'
import { ServiceError } from '../error.ts'

declare module 'fastify' {
  interface FastifySchema {
    /** the multipart form in the body; documented only: the files are checked one by one as they are read */
    form?: TSchema
  }
}

/** The schema of a form with files under one name. */
export const formOf = (name: string, description: string): TSchema =>
  Type.Object({ [name]: Type.Unsafe<Buffer>({ type: 'string', format: 'binary', description }) })

export interface UploadLimits {
  files: number
  /** bytes of one file */
  fileSize: number
  /** bytes of all files (default: `files` × `fileSize`) */
  size?: number
}

export interface UploadedFile {
  /** file name that the client gave */
  name: string
  bytes: Buffer
}

/** Large agents have a few dozen objects. */
const MAX_OBJECTS = 32

/** The form of BPF objects. */
export const OBJECTS = formOf('object', 'BPF objects')

/** The limits of a form of BPF objects; `fileSize` is that of one object in bytes. */
export const objectLimits = (fileSize: number): UploadLimits => ({
  files: MAX_OBJECTS,
  fileSize,
  size: 2 * fileSize,
})

/** The BPF objects in a request. Errors: those of `filesOf`. */
export const objectsOf = (request: FastifyRequest, limits: UploadLimits): Promise<UploadedFile[]> =>
  filesOf(request, 'object', limits)

/** Characters of a file name that are kept. */
const MAX_NAME = 100

/** Bytes that a form adds to its files. */
const FORM_OVERHEAD = 64 * 1024

/** The largest body of a form in bytes: the `bodyLimit` of its route. */
export const bodyLimitOf = (limits: UploadLimits): number => sizeOf(limits) + FORM_OVERHEAD

const sizeOf = ({ files, fileSize, size = files * fileSize }: UploadLimits): number => size

/**
 * Lets the routes of an app take forms. All their bytes count against a quota: many uploads that are allowed one by one must
 * not fill the memory. Errors: `busy`.
 */
export async function acceptUploads(
  app: FastifyInstance,
  uploads: Quota,
  uploadLimits: UploadLimits,
): Promise<void> {
  const { files, fileSize } = uploadLimits
  await app.register(multipart, {
    limits: { files, fileSize, fields: 0, parts: files, headerPairs: 32, fieldNameSize: 128 },
  })
  const most = bodyLimitOf(uploadLimits)
  app.addHook('onRequest', async ({ raw, headers }, reply) => {
    if (raw.method === 'GET' || raw.method === 'HEAD') return
    // content-length can be trusted: no more than that is read
    const bytes = Math.min(Number(headers['content-length'] ?? most), most)
    try {
      reply.raw.once('close', uploads.take(bytes))
    } catch (error) {
      raw.resume()
      throw error
    }
  })
}

/**
 * The files under one name in a form, in order. Errors: `invalid_request` for a form with other files or none, `too_large`,
 * `unsupported_media_type`.
 */
export async function filesOf(
  request: FastifyRequest,
  name: string,
  limits: UploadLimits,
): Promise<UploadedFile[]> {
  if (!request.isMultipart())
    throw new ServiceError('unsupported_media_type', 'the body must be multipart/form-data')
  try {
    const files: UploadedFile[] = []
    let left = sizeOf(limits)
    for await (const file of request.files()) {
      const bytes = await file.toBuffer()
      if (file.fieldname !== name)
        throw new ServiceError(
          'invalid_request',
          `unexpected form field ${JSON.stringify(file.fieldname)}: expected only ${name}`,
        )
      left -= bytes.length
      if (left < 0)
        throw new ServiceError(
          'too_large',
          `the files together are over the limit of ${sizeOf(limits)} bytes`,
        )
      files.push({ name: safeName(file.filename), bytes })
    }
    if (files.length > 0) return files
    throw new ServiceError('invalid_request', `the form has no file in the field ${name}`)
  } catch (error) {
    request.raw.unpipe()
    request.raw.resume()
    // errors of the form parser have no status
    if (error instanceof ServiceError || (error as FastifyError).statusCode) throw error
    throw new ServiceError('invalid_request', 'the multipart form could not be parsed', {
      cause: error,
    })
  }
}

/** A file name that is safe to print. */
function safeName(name: string | undefined): string {
  return posix
    .basename(name ?? '')
    .replace(/\p{Cc}/gu, '?')
    .slice(0, MAX_NAME)
}

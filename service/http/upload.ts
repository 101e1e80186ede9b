/*
 * Files that a client sends as a multipart form, in memory and bounded. What is refused is read to its end all the same,
 * as long as a request may take: a client that is still sending would not see the answer.
 */
import { posix } from 'node:path'
import multipart from '@fastify/multipart'
import type { FastifyError, FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type TSchema } from 'typebox'
import type { Quota } from '../concurrency.ts'
import { ServiceError } from '../error.ts'

declare module 'fastify' {
  interface FastifySchema {
    /** what the form holds that is the body; told, not checked: its files are read one by one */
    form?: TSchema
  }
}

/** A form of files under one name. */
export const formOf = (name: string, description: string): TSchema =>
  Type.Object({ [name]: Type.Unsafe<Buffer>({ type: 'string', format: 'binary', description }) })

export interface UploadLimits {
  files: number
  /** bytes of one file */
  fileSize: number
  /** bytes of all of them, where that is less */
  size?: number
}

export interface UploadedFile {
  /** as its sender calls it */
  name: string
  bytes: Buffer
}

/** Large agents carry some dozen objects. */
const MAX_OBJECTS = 32

/** The form in which BPF objects come. */
export const OBJECTS = formOf('object', 'BPF objects')

/** What may come in it, where one file has so many bytes at most. */
export const objectLimits = (fileSize: number): UploadLimits => ({
  ...{ files: MAX_OBJECTS, fileSize, size: 2 * fileSize },
})

/** The objects that a request brings. Errors: those of `filesOf`. */
export const objectsOf = (request: FastifyRequest, limits: UploadLimits): Promise<UploadedFile[]> =>
  filesOf(request, 'object', limits)

/** The longest name that is kept. */
const MAX_NAME = 100

/** What a form adds to its files, in bytes. */
const FORM_OVERHEAD = 64 * 1024

/** The longest body that such a form has, in bytes: the `bodyLimit` of its route. */
export const bodyLimitOf = (limits: UploadLimits): number => sizeOf(limits) + FORM_OVERHEAD

const sizeOf = ({ files, fileSize, size = files * fileSize }: UploadLimits): number => size

/**
 * Lets the routes of an app take forms, as long as there is room for their bytes: a stranger must not fill the memory with
 * many that are each allowed. Errors: `busy`.
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
    // what a client says of the length is true: no more is read
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
 * The files under one name in a form, in their order. Errors: `invalid_request` for a form with others or none,
 * `too_large`, `unsupported_media_type`.
 */
export async function filesOf(
  request: FastifyRequest,
  name: string,
  limits: UploadLimits,
): Promise<UploadedFile[]> {
  if (!request.isMultipart())
    throw new ServiceError('unsupported_media_type', 'the body is no multipart form')
  try {
    const files: UploadedFile[] = []
    let left = sizeOf(limits)
    for await (const file of request.files()) {
      const bytes = await file.toBuffer()
      if (file.fieldname !== name)
        throw new ServiceError('invalid_request', `the form has another file than ${name}`)
      left -= bytes.length
      if (left < 0) throw new ServiceError('too_large', 'the files of the form are too large')
      files.push({ name: shown(file.filename), bytes })
    }
    if (files.length > 0) return files
    throw new ServiceError('invalid_request', `the form has no file ${name}`)
  } catch (error) {
    request.raw.unpipe()
    request.raw.resume()
    // what the form's parser says of a form that it cannot read has no status of its own
    if (error instanceof ServiceError || (error as FastifyError).statusCode) throw error
    throw new ServiceError('invalid_request', 'the body is no form that can be read', {
      cause: error,
    })
  }
}

/** A name so that it does no harm where it is shown. */
function shown(name: string | undefined): string {
  return posix
    .basename(name ?? '')
    .replace(/\p{Cc}/gu, '?')
    .slice(0, MAX_NAME)
}

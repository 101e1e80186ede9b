/*
 * Files that a client uploads as a multipart form, in memory and with limits. Bytes count as they arrive, against the
 * memory for all uploads and against the client's share of it: a length that is only announced costs nothing. An upload
 * that stalls is ended. The body of a refused request is read to its end, within the request timeout: a client that is
 * still sending would not see the response.
 */
import { posix } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import multipart, { type MultipartFile } from '@fastify/multipart'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type, { type TSchema } from 'typebox'
import type { Quota, QuotaLease } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import { callerOf } from './requester.ts'

declare module 'fastify' {
  interface FastifySchema {
    /** the multipart form in the body; documented only: the files are checked one by one as they are read */
    form?: TSchema
  }
  interface FastifyRequest {
    /** undefined on routes that take no uploads */
    upload: ActiveUpload | undefined
  }
}

/** An upload that is received or worked on. */
interface ActiveUpload {
  /** the bytes that have arrived; ends with the response */
  lease: QuotaLease
  /** milliseconds without a byte before it is ended */
  timeout: number
  reply: FastifyReply
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

/** Lets the routes of an app take forms, and no other bodies. */
export async function acceptUploads(
  app: FastifyInstance,
  { uploads, settings }: { uploads: Quota; settings: { uploadTimeout: number } },
  { files, fileSize }: UploadLimits,
): Promise<void> {
  app.removeAllContentTypeParsers() // they would read a body without counting it
  await app.register(multipart, {
    limits: { files, fileSize, fields: 0, parts: files, headerPairs: 32, fieldNameSize: 128 },
  })
  app.decorateRequest('upload', undefined)
  app.addHook('onRequest', async (request, reply) => {
    if (request.method === 'GET' || request.method === 'HEAD') return
    const lease = uploads.lease(callerOf(request))
    reply.raw.once('close', () => lease.end())
    request.upload = { lease, timeout: settings.uploadTimeout * 1000, reply }
  })
}

/**
 * The files under one name in a form, in order. Errors: `invalid_request` for a form with other files or none, `too_large`,
 * `unsupported_media_type`; `busy` if the memory for uploads is used up; `timeout` if the upload stalls.
 */
export async function filesOf(
  request: FastifyRequest,
  name: string,
  limits: UploadLimits,
): Promise<UploadedFile[]> {
  if (!request.isMultipart())
    throw new ServiceError('unsupported_media_type', 'the body must be multipart/form-data')
  const { lease, timeout, reply } = request.upload!
  const received = new AbortController()
  try {
    return await Promise.race([
      receive(request, name, limits, lease),
      untilStalled(request, timeout, received.signal),
    ])
  } catch (error) {
    lease.end()
    request.raw.unpipe()
    request.raw.resume()
    if (error instanceof ServiceError && error.code === 'timeout')
      reply.header('connection', 'close')
    // errors of the form parser have no status
    if (error instanceof ServiceError || (error as FastifyError).statusCode) throw error
    throw new ServiceError('invalid_request', 'the multipart form could not be parsed', {
      cause: error,
    })
  } finally {
    received.abort()
  }
}

async function receive(
  request: FastifyRequest,
  name: string,
  limits: UploadLimits,
  lease: QuotaLease,
): Promise<UploadedFile[]> {
  const files: UploadedFile[] = []
  let left = sizeOf(limits)
  for await (const file of request.files()) {
    const bytes = await contentOf(file, lease)
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
}

/** The bytes of a file, which count as they arrive. Errors: `busy`, `too_large`. */
async function contentOf({ file }: MultipartFile, lease: QuotaLease): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of file) {
    lease.add(chunk.length)
    chunks.push(chunk)
  }
  if (file.truncated) throw new ServiceError('too_large', 'a file is over the limit of its size')
  return Buffer.concat(chunks)
}

/** Rejects when no byte has arrived for `timeout` milliseconds. Errors: `timeout`; the signal's reason. */
async function untilStalled(
  { raw: { socket } }: FastifyRequest,
  timeout: number,
  signal: AbortSignal,
): Promise<never> {
  for (let seen = -1; seen !== socket.bytesRead; ) {
    seen = socket.bytesRead
    await sleep(timeout, undefined, { signal })
  }
  throw new ServiceError('timeout', `no byte of the upload arrived for ${timeout / 1000} seconds`)
}

/** A file name that is safe to print. */
function safeName(name: string | undefined): string {
  return posix
    .basename(name ?? '')
    .replace(/\p{Cc}/gu, '?')
    .slice(0, MAX_NAME)
}

/*
 * The shared part of both ends of a queue in Redis: its name, the connection, and the messages. Each fingerprint has a
 * queue of its own, so that a worker with another pahole never takes a job whose result would differ. Everything that
 * comes out of Redis is untrusted until it has been validated.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { Failure, KernelName, sha256Of, showable } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type OnEvent, STAGES } from '../event.ts'
import { Job, jobIdOf } from './job.ts'

/** The prefix of all keys in Redis. */
export const PREFIX = 'btfmill'
/** The timeout of a connection, and the longest delay between two attempts, in milliseconds. */
const TIMEOUT = 5000

/** The name of the queue for a fingerprint. */
export const queueNameOf = (fingerprint: string): string => sha256Of(fingerprint).slice(0, 16)

/** A worker's message about a running job. */
const JobReport = Type.Union([
  Type.Object({
    event: Type.Literal('started'),
    kernel: KernelName,
    package: Type.String(),
    size: Type.Optional(Type.Union([Type.Integer({ minimum: 0 }), Type.Undefined()])),
    instead: Type.Optional(
      Type.Object({
        package: Type.String(),
        code: Failure.properties.code,
        message: Type.String(),
      }),
    ),
  }),
  Type.Object({
    event: Type.Literal('stage'),
    kernel: KernelName,
    stage: Type.Enum(STAGES),
  }),
  Type.Object({
    event: Type.Literal('progress'),
    kernel: KernelName,
    read: Type.Integer({ minimum: 0 }),
    size: Type.Optional(Type.Union([Type.Integer({ minimum: 0 }), Type.Undefined()])),
  }),
])
export type JobReport = Type.Static<typeof JobReport>

/** A worker's message about the result of a job. */
const JobReceipt = Type.Union([
  Type.Object({
    state: Type.Literal('published'),
    /** key of the record in the store */
    key: Type.String(),
    /** bytes of packages that were read; 0 if the store had the record */
    read: Type.Integer({ minimum: 0 }),
    seconds: Type.Number({ minimum: 0 }),
  }),
  Type.Object({
    state: Type.Literal('failed'),
    failure: Failure,
    stored: Type.Boolean(),
    read: Type.Integer({ minimum: 0 }),
    seconds: Type.Number({ minimum: 0 }),
  }),
])
export type JobReceipt = Type.Static<typeof JobReceipt>

const [job, report, receipt] = [Compile(Job), Compile(JobReport), Compile(JobReceipt)]

export const isReport = (value: unknown): value is JobReport => report.Check(value)
export const isReceipt = (value: unknown): value is JobReceipt => receipt.Check(value)

/** Validates a job from the queue: its schema, its id, and that its package is on a server. Errors: `queue_failed`. */
export function checkJob(value: unknown, id: string | undefined, fingerprint: string): Job {
  if (!job.Check(value))
    throw new GeneratorError(
      'queue_failed',
      'invalid job in the queue: its data do not match the schema',
    )
  checkRemote(value)
  if (jobIdOf(value, fingerprint) !== id)
    throw new GeneratorError(
      'queue_failed',
      `invalid job in the queue: its id ${id} does not match its data`,
    )
  return value
}

/** Checks that any machine can run a job, and not only this one. Errors: `queue_failed`. */
export function checkRemote({ package: { url }, fallbacks = [] }: Job): void {
  if (!/^https?:\/\//.test(url))
    throw new GeneratorError(
      'queue_failed',
      `workers need an http or https URL, not ${showable(url)}`,
    )
  for (const fallback of fallbacks) checkRemote(fallback)
}

export interface Connection {
  redis: Redis
  close(): void
}

/**
 * Connects to a Redis. A connection that is lost later is restored, and `onEvent` receives an event for both. Errors:
 * `queue_failed`.
 */
export async function connect(url: string, onEvent: OnEvent = () => {}): Promise<Connection> {
  const address = addressOf(url)
  let open = false
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: TIMEOUT,
    maxRetriesPerRequest: null,
    retryStrategy: (times) => (open ? Math.min(100 * 2 ** times, TIMEOUT) : null),
  })
  let lost = false
  let reason = 'the connection was closed'
  redis.on('error', (error: Error) => {
    reason = error.message || (error as NodeJS.ErrnoException).code || reason
  })
  redis.on('close', () => {
    if (open && !lost) onEvent({ event: 'queue', state: 'lost', message: `${address}: ${reason}` })
    lost = true
  })
  redis.on('ready', () => {
    if (open && lost) onEvent({ event: 'queue', state: 'back', message: address })
    lost = false
  })
  try {
    await redis.connect()
    await redis.ping()
    open = true
    const close = () => {
      open = false
      redis.disconnect()
    }
    return { redis, close }
  } catch (cause) {
    redis.disconnect()
    throw new GeneratorError('queue_failed', `${address}: ${reason}`, { cause })
  }
}

/** Waits for operations that close a connection, with a timeout and without errors, since it may be lost. */
export async function closeQuietly(...closing: Promise<unknown>[]): Promise<void> {
  const closed = new AbortController()
  const timeout = sleep(TIMEOUT, undefined, { signal: closed.signal }).catch(() => {})
  await Promise.race([Promise.allSettled(closing), timeout])
  closed.abort()
}

/** A Redis URL without user, password and path. Errors: `queue_failed` for other URLs. */
function addressOf(url: string): string {
  const parsed = URL.parse(url)
  if (!parsed?.host || !/^rediss?:$/.test(parsed.protocol))
    throw new GeneratorError(
      'queue_failed',
      'invalid queue URL: expected redis://HOST:PORT or rediss://HOST:PORT',
    )
  return `${parsed.protocol}//${parsed.host}`
}

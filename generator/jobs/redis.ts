/*
 * What the two ends of a queue in Redis have in common: its name, how they connect, and what they tell each other. Each
 * fingerprint version has a queue of its own, so that a worker whose pahole is another never takes a job whose result would
 * be another. Whatever comes out of Redis is somebody else's until it was checked.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { Failure, KernelName, sha256Of } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { type OnEvent, STAGES } from '../event.ts'
import { Job, jobIdOf } from './job.ts'

/** Of all keys. */
export const PREFIX = 'btfmill'
/** Milliseconds to connect in; and the longest pause between two attempts. */
const PATIENCE = 5000

/** The name of the queue for an fingerprint version. */
export const queueNameOf = (fingerprint: string): string => sha256Of(fingerprint).slice(0, 16)

/** What a worker says of a job while it works. */
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

/** What a worker says became of a job. */
const JobReceipt = Type.Union([
  Type.Object({
    state: Type.Literal('published'),
    /** of the record in the store */
    key: Type.String(),
    /** bytes of the package; none where it was there already */
    read: Type.Integer({ minimum: 0 }),
    seconds: Type.Number({ minimum: 0 }),
  }),
  Type.Object({
    state: Type.Literal('failed'),
    failure: Failure,
    stored: Type.Boolean(),
    seconds: Type.Number({ minimum: 0 }),
  }),
])
export type JobReceipt = Type.Static<typeof JobReceipt>

const [job, report, receipt] = [Compile(Job), Compile(JobReport), Compile(JobReceipt)]

export const isReport = (value: unknown): value is JobReport => report.Check(value)
export const isReceipt = (value: unknown): value is JobReceipt => receipt.Check(value)

/**
 * A job as it may come from a queue: under its own id, and for a server that any machine can ask. Errors:
 * `queue_failed`.
 */
export function checkJob(value: unknown, id: string | undefined, fingerprint: string): Job {
  if (!job.Check(value)) throw new GeneratorError('queue_failed', 'what is queued is no job')
  checkRemote(value)
  if (jobIdOf(value, fingerprint) !== id)
    throw new GeneratorError('queue_failed', 'a job is queued under the id of another')
  return value
}

/** Refuses a job that only this machine could do. Errors: `queue_failed`. */
export function checkRemote({ package: { url }, fallback }: Job): void {
  if (!/^https?:\/\//.test(url))
    throw new GeneratorError('queue_failed', `workers take packages from servers, not from ${url}`)
  if (fallback) checkRemote(fallback)
}

export interface Connection {
  redis: Redis
  close(): void
}

/**
 * Connects to a Redis. A connection that is lost later comes back by itself, and `onEvent` hears of both. Errors:
 * `queue_failed`.
 */
export async function connect(url: string, onEvent: OnEvent = () => {}): Promise<Connection> {
  const where = placeOf(url)
  let open = false
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: PATIENCE,
    maxRetriesPerRequest: null,
    retryStrategy: (times) => (open ? Math.min(100 * 2 ** times, PATIENCE) : null),
  })
  let [why, lost] = ['the connection is closed', false]
  redis.on('error', (error: Error) => {
    why = error.message || (error as NodeJS.ErrnoException).code || why
  })
  redis.on('close', () => {
    if (open && !lost) onEvent({ event: 'queue', state: 'lost', message: `${where}: ${why}` })
    lost = true
  })
  redis.on('ready', () => {
    if (open && lost) onEvent({ event: 'queue', state: 'back', message: where })
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
    throw new GeneratorError('queue_failed', `${where}: ${why}`, { cause })
  }
}

/** Waits for what lets go of a connection, which may have been lost; not for long. */
export async function closeQuietly(...goodbyes: Promise<unknown>[]): Promise<void> {
  const enough = new AbortController()
  const tooLong = sleep(PATIENCE, undefined, { signal: enough.signal }).catch(() => {})
  await Promise.race([Promise.allSettled(goodbyes), tooLong])
  enough.abort()
}

/** The host and port of a URL, without the password. Errors: `queue_failed` for what is no URL of a Redis. */
function placeOf(url: string): string {
  const parsed = URL.parse(url)
  if (!parsed?.host || !/^rediss?:$/.test(parsed.protocol))
    throw new GeneratorError('queue_failed', 'a queue is redis://HOST:PORT or rediss://HOST:PORT')
  return `${parsed.protocol}//${parsed.host}`
}

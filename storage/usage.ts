/*
 * Which kernels were asked for in a month. All services on a store share one document for each month, which they replace
 * by compare-and-swap. A kernel is in it once, however often it was asked for.
 */
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { ignoreNotFound, isUnusableRecord } from './error.ts'
import { parseJson, readBytes } from './json.ts'
import type { KernelName } from './kernel.ts'
import { kernelPrefix } from './name.ts'
import type { Store } from './store.ts'
import { compareAndSwap, ifUnchanged } from './swap.ts'

const PREFIX = 'usage/'
/** The largest document that is read, in bytes: of some 300 000 kernels. */
const MAX_USAGE = 32 * 1024 * 1024

const MonthUsage = Compile(
  Type.Object({
    schema: Type.Literal(1),
    /** prefixes of the keys of kernels, in byte order */
    kernels: Type.Array(Type.String({ maxLength: 2048 })),
  }),
)

/** The month of a time, in UTC: `2026-11`. */
export const monthOf = (time: Date): string => time.toISOString().slice(0, 7)

const keyOf = (month: string): string => `${PREFIX}${month}.json`

/**
 * Adds kernels, as `kernelPrefix` gives them, to those that were asked for in a month. A document that is no usage is
 * replaced. Errors: `precondition_failed` if other writers always win; those of `Store`.
 */
export async function addUsage(
  store: Store,
  month: string,
  prefixes: ReadonlySet<string>,
): Promise<void> {
  const key = keyOf(month)
  await compareAndSwap(async () => {
    const head = await store.head(key).catch(ignoreNotFound)
    const known = head ? await readMonth(store, key) : new Set<string>()
    const all = known.union(prefixes)
    if (head && all.size === known.size) return
    const bytes = Buffer.from(`${JSON.stringify({ schema: 1, kernels: [...all].sort() })}\n`)
    await store.put(key, bytes, ifUnchanged(head?.etag))
  })
}

/** What is known of the requests of the last months. */
export interface RecentUsage {
  /** the first month of which anything is known, `2026-11`; undefined if there is none */
  since: string | undefined
  /** Tells whether a kernel was asked for in one of these months. */
  has(kernel: KernelName): boolean
}

/** The usage of this month and of those before it, `months` in all. Errors: those of `Store`. */
export async function recentUsage(
  store: Store,
  months: number,
  now = new Date(),
): Promise<RecentUsage> {
  const first = firstMonth(months, now)
  let since: string | undefined
  let used = new Set<string>()
  for await (const { key } of store.list(PREFIX)) {
    const [, month] = /^usage\/(\d{4}-\d{2})\.json$/.exec(key) ?? []
    if (month === undefined) continue
    if (since === undefined || month < since) since = month
    if (month >= first) used = used.union(await readMonth(store, key))
  }
  return { since, has: (kernel) => used.has(kernelPrefix(kernel)) }
}

/** The first month that counts if a kernel must have been asked for in the last `months`. */
export const firstMonth = (months: number, now = new Date()): string =>
  monthOf(new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months + 1)))

async function readMonth(store: Store, key: string): Promise<Set<string>> {
  const bytes = await readBytes(store, key, MAX_USAGE).catch(ignoreNotFound)
  if (!bytes) return new Set()
  try {
    return new Set(parseJson(key, bytes, MonthUsage).kernels)
  } catch (error) {
    if (!isUnusableRecord(error)) throw error
    return new Set()
  }
}

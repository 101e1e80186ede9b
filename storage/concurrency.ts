/*
 * Concurrent work with a bound. The first error stops the start of further work, and is thrown once the work that was
 * started has ended: nothing runs on behind the caller's back.
 */

type Items<T> = Iterable<T> | AsyncIterable<T>

/** Calls `work` for each item, `count` calls at a time. Errors: the first one of `work` or of the items. */
export async function forEachConcurrent<T>(
  items: Items<T>,
  count: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>()
  try {
    for await (const item of items) {
      const started = work(item).then(() => void running.delete(started))
      started.catch(() => {}) // thrown below; unhandled until then, it would end the process
      running.add(started)
      if (running.size >= count) await Promise.race(running)
    }
    await Promise.all(running)
  } finally {
    await Promise.allSettled(running)
  }
}

/** Returns the results of `work` in the order of the items, with `count` calls at a time. Errors: the first one. */
export async function mapConcurrent<T, R>(
  items: Iterable<T>,
  count: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  await forEachConcurrent([...items].entries(), count, async ([i, item]) => {
    results[i] = await work(item)
  })
  return results
}

/**
 * Yields the results of `work` in the order of the items, with `count` calls at a time: an item is started when an
 * earlier result was taken. Errors: the first one, when its turn comes.
 */
export async function* mapOrdered<T, R>(
  items: Iterable<T>,
  count: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const running: Promise<R>[] = []
  try {
    for (const item of items) {
      const started = work(item)
      started.catch(() => {}) // thrown when its turn comes
      running.push(started)
      if (running.length === count) yield await running.shift()!
    }
    while (running.length > 0) yield await running.shift()!
  } finally {
    await Promise.allSettled(running)
  }
}

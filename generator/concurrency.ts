/** Calls `work` for each item, `count` at once. Returns the results in the items' order; rejects with the first error. */
export async function mapConcurrent<T, R>(
  items: Iterable<T>,
  count: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  const waiting = [...items].entries()
  const worker = async () => {
    for (const [i, item] of waiting) results[i] = await work(item)
  }
  await Promise.all(Array.from({ length: count }, worker))
  return results
}

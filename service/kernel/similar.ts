/*
 * Similar names for a "did you mean" hint. The work is bounded: long names, and names after the first 50 000, are not
 * compared, and a comparison ends as soon as the distance is over the limit.
 */

const MAX_LENGTH = 100
const MAX_NAMES = 50_000

/**
 * Returns up to `limit` names, nearest first, that contain `wanted`, or whose edit distance from it is at most a third
 * of its length.
 */
export function findSimilar(wanted: string, names: Iterable<string>, limit = 3): string[] {
  if (wanted.length === 0 || wanted.length > MAX_LENGTH) return []
  const text = wanted.toLowerCase()
  const max = Math.max(1, Math.floor(text.length / 3))
  const found: { name: string; distance: number }[] = []
  let compared = 0
  for (const name of names) {
    if (++compared > MAX_NAMES) break
    const distance = distanceOf(text, name.toLowerCase(), max)
    if (distance <= max) found.push({ name, distance })
  }
  // the sort is stable: names at the same distance keep their order
  return found
    .sort((a, b) => a.distance - b.distance)
    .slice(0, limit)
    .map(({ name }) => name)
}

/** A question for people: `did you mean a, b, or c?` */
export const didYouMean = (near: readonly string[]): string =>
  `did you mean ${new Intl.ListFormat('en', { type: 'disjunction' }).format(near)}?`

/** A name that contains `wanted` has distance 1, like one wrong letter: people type releases without the flavour. */
function distanceOf(wanted: string, name: string, max: number): number {
  return wanted.length >= 3 && name.includes(wanted) ? 1 : editDistance(wanted, name, max)
}

/**
 * The optimal string alignment distance: the number of insertions, deletions, replacements and swaps of neighbours that
 * turn one text into the other. Returns any number over `max` if the distance is over `max`.
 */
function editDistance(a: string, b: string, max: number): number {
  if (Math.abs(a.length - b.length) > max) return max + 1
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row[j] = Math.min(
        previous[j]! + 1,
        row[j - 1]! + 1,
        previous[j - 1]! + cost,
        swapped ? before[j - 2]! + 1 : Number.POSITIVE_INFINITY,
      )
    }
    if (Math.min(...row) > max) return max + 1
    ;[before, previous] = [previous, row]
  }
  return previous[b.length]!
}

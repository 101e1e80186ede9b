/*
 * Globs for releases, as in glob(7) without slashes: `*`, `?`, `[0-9]`, `[!ab]`. The pattern may come from anyone, and
 * a regular expression made of it could backtrack without end. This matcher needs at most |pattern| × |text| steps.
 */

/** Tells whether a pattern may match texts other than itself. */
export const isGlob = (pattern: string): boolean => /[*?[]/.test(pattern)

/** Tells whether a glob matches the whole text. A `[` without `]` matches itself. */
export function matchGlob(pattern: string, text: string): boolean {
  let p = 0
  let t = 0
  let star = -1
  let resume = 0
  while (t < text.length) {
    const step = p < pattern.length && pattern[p] !== '*' ? matchOne(pattern, p, text[t]!) : 0
    if (step > 0) {
      p += step
      t++
    } else if (pattern[p] === '*') {
      star = p++
      resume = t
    } else if (star >= 0) {
      p = star + 1
      t = ++resume
    } else {
      return false
    }
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}

/** The number of pattern characters at `at` that match one character of the text; 0 if they do not match. */
function matchOne(pattern: string, at: number, char: string): number {
  if (pattern[at] === '?') return 1
  const end =
    pattern[at] === '[' ? pattern.indexOf(']', at + (pattern[at + 1] === '!' ? 3 : 2)) : -1
  if (end < 0) return pattern[at] === char ? 1 : 0
  const negated = pattern[at + 1] === '!'
  const inside = inSet(pattern.slice(at + (negated ? 2 : 1), end), char)
  return inside !== negated ? end + 1 - at : 0
}

function inSet(set: string, char: string): boolean {
  for (let i = 0; i < set.length; i++) {
    if (set[i + 1] === '-' && i + 2 < set.length) {
      if (set[i]! <= char && char <= set[i + 2]!) return true
      i += 2
    } else if (set[i] === char) return true
  }
  return false
}

/*
 * The order of package versions: Debian's (deb-version(7), lib/dpkg/version.c of dpkg). It orders the versions of one
 * RPM package as well.
 */

/** Compares two versions: negative if `a` is older than `b`, positive if it is newer, 0 if they are equal. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [split(a), split(b)]
  return (
    left.epoch - right.epoch ||
    compareParts(left.upstream, right.upstream) ||
    compareParts(left.revision, right.revision)
  )
}

function split(version: string): { epoch: number; upstream: string; revision: string } {
  const [, epoch = '0', upstream = '', revision = ''] =
    /^(?:(\d+):)?(.*?)(?:-([^-]*))?$/s.exec(version) ?? []
  return { epoch: Number(epoch), upstream, revision }
}

/** Compares runs of non-digits and runs of digits alternately. */
function compareParts(a: string, b: string): number {
  const [left, right] = [a.split(/(\d+)/), b.split(/(\d+)/)]
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x = '', y = ''] = [left[i], right[i]]
    const order = i % 2 === 0 ? compareText(x, y) : compareNumbers(x, y)
    if (order !== 0) return order
  }
  return 0
}

function compareText(a: string, b: string): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const order = rank(a[i]) - rank(b[i])
    if (order !== 0) return order
  }
  return 0
}

/** The order of characters: `~`, the end of the text, letters, all others. */
function rank(char: string | undefined): number {
  if (char === undefined) return 0
  if (char === '~') return -1
  return char.charCodeAt(0) + (/[A-Za-z]/.test(char) ? 0 : 256)
}

function compareNumbers(a: string, b: string): number {
  const difference = BigInt(a || '0') - BigInt(b || '0')
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

// Compares our order of package versions with that of dpkg.
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { compareVersions } from '../../storage/index.ts'

/** Versions of kernels and edge cases of deb-version(7). */
const KNOWN = [
  ...['6.1.190-1', '6.1.90-1', '6.1.90-1~bpo11+1', '6.12.107+deb13-1', '6.12.107-1', '7.3.4-1'],
  ...['6.1~rc1-1~exp1', '6.1-1', '6.1-1+b1', '6.1-01', '1:1.0-1', '0:6.1-1', '6.1', '6.1-0'],
  ...[
    '1.0-a',
    '1.0-a~',
    '1.0-a+',
    '1.0-aB',
    '1.0-1.1',
    '1.0.-1',
    '1.0-~',
    '2.0~~',
    '2.0~~a',
    '2.0~',
  ],
  ...['1:6.1', '1.0-1-1', '0', '00', '9'.repeat(40), `1${'0'.repeat(40)}`],
]

/** The order of pairs by dpkg. One shell compares all of them, since each needs a process or two. */
function dpkg(pairs: readonly (readonly [string, string])[]): number[] {
  const script = `
    while read -r a b; do
      if dpkg --compare-versions "$a" lt "$b"; then echo -1
      elif dpkg --compare-versions "$a" gt "$b"; then echo 1
      else echo 0; fi
    done
  `
  const input = pairs.map((pair) => `${pair.join(' ')}\n`).join('')
  const { stdout } = spawnSync('sh', ['-c', script], { input, encoding: 'utf8' })
  return stdout.trim().split('\n').map(Number)
}

/** Pseudo-random versions from few letters, so that many share a prefix; equal in every run. */
function generated(count: number): string[] {
  const letters = ['0', '1', '9', '10', '.', '+', '~', 'a', 'Z', '-1', '-']
  let state = 1
  const next = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const some = () => Array.from({ length: next(6) }, () => letters[next(letters.length)]!).join('')
  return Array.from({ length: count }, () => {
    const epoch = next(8) === 0 ? `${next(2)}:` : ''
    return `${epoch}1${some().replace(/-+$/, '')}`
  })
}

t.test('compareVersions orders every pair as dpkg does', async (t) => {
  const random = generated(300)
  const pairs = [
    ...KNOWN.map((a, i) => [a, KNOWN[(i + 1) % KNOWN.length]!] as const),
    ...KNOWN.map((a, i) => [a, KNOWN[(i * 7 + 3) % KNOWN.length]!] as const),
    ...random.slice(1).map((b, i) => [random[i]!, b] as const),
  ]
  const said = dpkg(pairs)
  t.equal(said.length, pairs.length, 'dpkg compared every pair')
  const differing = said.flatMap((theirs, i) => {
    const [a, b] = pairs[i]!
    const [ours, reverse] = [Math.sign(compareVersions(a, b)), Math.sign(compareVersions(b, a))]
    return ours === theirs && reverse === -theirs + 0 ? [] : [`${a} ${b}: ${ours}, not ${theirs}`]
  })
  t.same(differing, [])
  t.comment(`${pairs.length} pairs`)
})

t.test('compareVersions compares versions of 100 kB without a hang', async (t) => {
  const long = '1'.repeat(100_000)
  t.equal(compareVersions(long, long), 0)
  t.ok(compareVersions('1-'.repeat(50_000), '1.'.repeat(50_000)) !== 0)
})

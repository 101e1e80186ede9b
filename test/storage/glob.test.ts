// Compares our globs with those of bash, and runs hostile patterns.
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { matchGlob } from '../../storage/index.ts'

const PATTERNS = [
  ...['', '*', '**', '?', '*?', '6.1.0-*', '*-amd64', '6.1.0-*[0-9]-686-pae', '6.1.0-??-amd64'],
  ...['[0-9]*', '[!0-9]*', '[a-c]', '[!a-c]', '[abc]', '[a-]', '[-a]', '[]a]', '[!]a]', '[c-a]'],
  ...['[', ']', '[]', '[!', '[a', 'a]', '[!]', '[[]', '*[*', '[*]', '[?]', 'a[b-d]e', '*a*b*c*'],
  ...['6.1.0+*', '.*', '*.', '^6', '$', '(a)', '{a,b}', '6.1.0-1', 'é', '?é'],
]

const TEXTS = [
  ...[
    '',
    'a',
    'b',
    'c',
    'd',
    '-',
    ']',
    '[',
    '!',
    '*',
    '?',
    'a]',
    '[a',
    '[]',
    '[!',
    '^6',
    '$',
    '(a)',
  ],
  ...['6.1.0-1', '6.1.0-49-686-pae', '6.1.0-49-rt-686-pae', '6.1.0-49-amd64', '6.1.0-4-amd64'],
  ...['6.1.0+deb13', 'ace', 'abe', 'aXbYc', 'abcabc', '.', '{a,b}', 'é', 'eé', '6', '1a', 'a1'],
]

/** A shell script: prints 1 or 0 for each line of its input that matches the pattern or not. */
const MATCH = 'while read -r text; do case $text in $1) printf 1;; *) printf 0;; esac; done'

t.test('matchGlob agrees with bash for every pattern and text', async (t) => {
  const input = `${TEXTS.join('\n')}\n`
  const env = { LC_ALL: 'C.UTF-8' }
  for (const pattern of PATTERNS) {
    const theirs = execFileSync('bash', ['--norc', '-c', MATCH, 'bash', pattern], {
      input,
      env,
    }).toString()
    t.equal(TEXTS.map((text) => Number(matchGlob(pattern, text))).join(''), theirs, pattern)
  }
})

t.test('matchGlob treats a slash as an ordinary character', async (t) => {
  t.ok(matchGlob('*/vmlinux-*', './usr/lib/debug/boot/vmlinux-6.1.0'))
})

t.test('matchGlob ends quickly for hostile patterns', { timeout: 10_000 }, async (t) => {
  const text = 'a'.repeat(5000)
  t.notOk(matchGlob('*a'.repeat(2000), `${'a'.repeat(1999)}b`))
  t.notOk(matchGlob(`${'*a'.repeat(500)}b`, text))
  t.notOk(matchGlob(`*${'[a]'.repeat(1000)}b`, text))
  t.notOk(matchGlob(`*${'[!b-z]'.repeat(500)}b`, text))
  t.notOk(matchGlob(`*[${'b'.repeat(5000)}]`, text))
  t.notOk(matchGlob(`*${'['.repeat(2000)}b`, '['.repeat(4000)))
  t.ok(matchGlob('*'.repeat(100_000), text))
})

import { chmodSync } from 'node:fs'
import t, { type Test } from 'tap'
import { DEFAULT_MIRROR, findMirror } from '../../../generator/sources/mirror.ts'

/** Replaces apt-get by a script (or by nothing) until the test ends. */
function replaceApt(t: Test, script?: string): void {
  const directory = t.testdir(script === undefined ? {} : { 'apt-get': `#!/bin/sh\n${script}\n` })
  if (script !== undefined) chmodSync(`${directory}/apt-get`, 0o755)
  const before = process.env.PATH
  process.env.PATH = script === undefined ? directory : `${directory}:${before}`
  t.teardown(() => {
    process.env.PATH = before
  })
}

t.test('a given mirror is used, and other repositories are its siblings', async (t) => {
  replaceApt(t, 'echo http://other.example/debian/')
  const mirror = await findMirror('http://host.example/pub/debian/')
  t.equal(mirror('debian'), 'http://host.example/pub/debian')
  t.equal(mirror('debian-security'), 'http://host.example/pub/debian-security')
  const disk = await findMirror('file:///srv/debian')
  t.equal(disk('debian-security'), 'file:///srv/debian-security')
})

t.test('without a given mirror, each repository is where apt on this machine has it', async (t) => {
  replaceApt(
    t,
    `
    echo "$@" | grep -q 'indextargets.*REPO_URI' || exit 1
    echo http://one.example/debian/
    echo http://one.example/debian/
    echo https://two.example/pub/debian-security/
    echo http://late.example/debian/
    echo https://packages.example/apt/
    echo not a URL
  `,
  )
  const mirror = await findMirror()
  t.equal(mirror('debian'), 'http://one.example/debian', 'the first one wins')
  t.equal(mirror('debian-security'), 'https://two.example/pub/debian-security')
  t.equal(
    mirror('debian-ports'),
    'http://one.example/debian-ports',
    'a repository that apt does not have is a sibling of the main one',
  )
})

t.test('without apt, or without Debian in it, the mirror is the archive itself', async (t) => {
  for (const script of [undefined, 'exit 100', 'echo https://packages.example/apt/']) {
    await t.test(`${script}`, async (t) => {
      replaceApt(t, script)
      const mirror = await findMirror()
      t.equal(mirror('debian'), DEFAULT_MIRROR)
      t.equal(mirror('debian-security'), `${DEFAULT_MIRROR}-security`)
    })
  }
})

import { chmodSync } from 'node:fs'
import t, { type Test } from 'tap'
import { DEFAULT_MIRROR, findMirror } from '../../../generator/sources/mirror.ts'

/** A machine whose apt-get is this script, for as long as its test takes. */
function machine(t: Test, script?: string): void {
  const directory = t.testdir(script === undefined ? {} : { 'apt-get': `#!/bin/sh\n${script}\n` })
  if (script !== undefined) chmodSync(`${directory}/apt-get`, 0o755)
  const before = process.env.PATH
  process.env.PATH = script === undefined ? directory : `${directory}:${before}`
  t.teardown(() => {
    process.env.PATH = before
  })
}

t.test('the one that is given, and its siblings', async (t) => {
  machine(t, 'echo http://other.example/debian/')
  const mirror = await findMirror('http://host.example/pub/debian/')
  t.equal(mirror('debian'), 'http://host.example/pub/debian')
  t.equal(mirror('debian-security'), 'http://host.example/pub/debian-security')
  const disk = await findMirror('file:///srv/debian')
  t.equal(disk('debian-security'), 'file:///srv/debian-security')
})

t.test("the machine's own apt, each repository where it has it", async (t) => {
  machine(
    t,
    `
    echo "$@" | grep -q 'indextargets.*REPO_URI' || exit 1
    echo http://one.example/debian/
    echo http://one.example/debian/
    echo https://two.example/pub/debian-security/
    echo http://late.example/debian/
    echo https://packages.example/apt/
    echo not a line of ours
  `,
  )
  const mirror = await findMirror()
  t.equal(mirror('debian'), 'http://one.example/debian', 'the first one wins')
  t.equal(mirror('debian-security'), 'https://two.example/pub/debian-security')
  t.equal(mirror('debian-ports'), 'http://one.example/debian-ports', 'else beside the main one')
})

t.test('no apt, an apt that fails, an apt without Debian: the archive itself', async (t) => {
  for (const script of [undefined, 'exit 100', 'echo https://packages.example/apt/']) {
    await t.test(`${script}`, async (t) => {
      machine(t, script)
      const mirror = await findMirror()
      t.equal(mirror('debian'), DEFAULT_MIRROR)
      t.equal(mirror('debian-security'), `${DEFAULT_MIRROR}-security`)
    })
  }
})

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { fixture, fixtureFolder } from '../helpers/fixtures.ts'

const script = fileURLToPath(new URL('../fixtures/bpf/make.sh', import.meta.url))

function toolVersions(): string {
  const clang = execFileSync('clang', ['--version'], { encoding: 'utf8' }).split('\n', 1)[0]
  return `${clang}\n${execFileSync('pahole', ['--version'], { encoding: 'utf8' })}`
}

const skip =
  toolVersions() !== fixture('tools.txt').toString() &&
  'other versions of clang and pahole made the committed ones'

t.test('the committed fixtures equal those that make.sh builds', { skip }, (t) => {
  const made = t.testdir()
  execFileSync(script, [made], { stdio: ['ignore', 'ignore', 'pipe'] })
  t.same(
    readdirSync(made).sort(),
    readdirSync(fixtureFolder).sort(),
    'make.sh builds the same files',
  )
  for (const name of readdirSync(made)) {
    t.ok(readFileSync(join(made, name)).equals(fixture(name)), name)
  }
  t.end()
})

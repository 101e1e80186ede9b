import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { coreFolder } from '../helpers/core.ts'

const script = fileURLToPath(new URL('../fixtures/core/make.sh', import.meta.url))

function toolVersions(): string {
  const clang = execFileSync('clang-19', ['--version'], { encoding: 'utf8' }).split('\n', 1)[0]
  return `${clang}\n${execFileSync('pahole', ['--version'], { encoding: 'utf8' })}`
}

const skip =
  toolVersions() !== readFileSync(join(coreFolder, 'tools.txt'), 'utf8') &&
  'other versions of clang and pahole made the committed ones'

t.test('the committed objects and kernels equal those that make.sh builds', { skip }, (t) => {
  const made = t.testdir()
  execFileSync(script, [made], { stdio: ['ignore', 'ignore', 'pipe'] })
  t.same(readdirSync(made).sort(), readdirSync(coreFolder).sort(), 'make.sh builds the same files')
  for (const name of readdirSync(made)) {
    t.ok(readFileSync(join(made, name)).equals(readFileSync(join(coreFolder, name))), name)
  }
  t.end()
})

/*
 * Makes a release commit and its tag: npm run release -- 0.2.0
 *
 * It requires a clean tree and a new version, runs `npm run check`, then writes the version wherever it stands, moves
 * the changelog's Unreleased section under it, commits, and tags. It does not push or publish: it prints how.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

const CHANGELOG = 'CHANGELOG.md'
const REPOSITORY = 'https://github.com/btfmill/btfmill'

const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim()

function fail(message: string): never {
  console.error(`release: ${message}`)
  process.exit(1)
}

/** Replaces text in a file. The text must be there. */
function edit(path: string, before: string | RegExp, after: string): void {
  const text = readFileSync(path, 'utf8')
  const edited = text.replaceAll(before, after)
  if (edited === text) fail(`${path}: found no ${before}`)
  writeFileSync(path, edited)
}

const [version = ''] = process.argv.slice(2)
if (!/^\d+\.\d+\.\d+(-[0-9a-z.]+)?$/.test(version))
  fail(`invalid version "${version}": expected MAJOR.MINOR.PATCH, such as 0.2.0`)
if (git('status', '--porcelain') !== '') fail('the working tree has changes: commit or stash them')
if (git('tag', '--list', `v${version}`) !== '') fail(`the tag v${version} exists`)

const { version: current } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
const changelog = readFileSync(CHANGELOG, 'utf8')
const [, notes = ''] =
  /\n## \[Unreleased\]\n([\s\S]*?)\n(?=## \[|\[Unreleased\]:)/.exec(changelog) ?? []
if (notes.trim() === '') fail(`${CHANGELOG} has nothing under Unreleased`)

execFileSync('npm', ['run', '--silent', 'check'], { stdio: 'inherit' })

for (const path of ['package.json', 'bpf/package.json'].filter((path) => existsSync(path)))
  edit(path, /("version": )"[^"]*"/g, `$1"${version}"`)
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'))
lock.version = version
for (const key of ['', 'bpf']) if (lock.packages[key]) lock.packages[key].version = version
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`)
edit('service/version.ts', `'${current}'`, `'${version}'`)
for (const name of ['discover', 'service', 'worker', 'nodes/btf'])
  edit(`docker/kubernetes/${name}.yaml`, /(image: btfmill\/\w+):.*/g, `$1:${version}`)
const today = new Date().toISOString().slice(0, 10)
edit(CHANGELOG, '\n## [Unreleased]\n', `\n## [Unreleased]\n\n## [${version}] - ${today}\n`)
edit(
  CHANGELOG,
  /\n\[Unreleased\]: .*\n/g,
  `\n[Unreleased]: ${REPOSITORY}/compare/v${version}...HEAD\n[${version}]: ${REPOSITORY}/compare/v${current}...v${version}\n`,
)

git('commit', '--all', '--message', `release: ${version}`)
git('tag', '--annotate', `v${version}`, '--message', `btfmill ${version}\n${notes}`)
console.log(`committed and tagged v${version}. To publish it:
  git push --follow-tags
  npm publish`)

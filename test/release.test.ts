/* The release script, on a copy of the files that it edits, with a check that passes. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'

const ROOT = join(import.meta.dirname, '..')
const FILES = ['package.json', 'package-lock.json', 'CHANGELOG.md', 'service/version.ts', 'docker']

/** A git repository with these files, all committed. */
function makeRepository(t: Test) {
  const directory = t.testdir({})
  for (const file of FILES) cpSync(join(ROOT, file), join(directory, file), { recursive: true })
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=T', '-c', 'user.email=t@example.org', ...args], {
      cwd: directory,
      encoding: 'utf8',
    }).trim()
  const path = (file: string) => join(directory, file)
  const { scripts, ...rest } = JSON.parse(readFileSync(path('package.json'), 'utf8'))
  const manifest = { ...rest, version: '0.1.0', scripts: { ...scripts, check: 'true' } }
  writeFileSync(path('package.json'), JSON.stringify(manifest, null, 2))
  writeFileSync(path('service/version.ts'), "export const VERSION = '0.1.0'\n")
  writeFileSync(
    path('CHANGELOG.md'),
    '# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0] - 2026-01-01\n\nFirst.\n\n[Unreleased]: x\n[0.1.0]: y\n',
  )
  git('init', '--quiet')
  git('add', '.')
  git('commit', '--quiet', '--message', 'start')
  const release = (...args: string[]) =>
    spawnSync(process.execPath, [join(ROOT, '.ci/release.ts'), ...args], {
      cwd: directory,
      encoding: 'utf8',
      env: {
        ...process.env,
        ...{ GIT_AUTHOR_NAME: 'T', GIT_AUTHOR_EMAIL: 't@example.org' },
        ...{ GIT_COMMITTER_NAME: 'T', GIT_COMMITTER_EMAIL: 't@example.org' },
      },
    })
  return { git, path, release }
}

t.test(
  'a release writes the version everywhere, moves the changelog, commits and tags',
  async (t) => {
    const { git, path, release } = makeRepository(t)
    const { status, stderr } = release('9.8.7')
    t.equal(status, 0, stderr)
    for (const file of ['package.json', 'package-lock.json', 'service/version.ts'])
      t.match(readFileSync(path(file), 'utf8'), '9.8.7', file)
    for (const file of ['service', 'nodes/btf'])
      t.match(readFileSync(path(`docker/kubernetes/${file}.yaml`), 'utf8'), 'btfmill/service:9.8.7')
    const changelog = readFileSync(path('CHANGELOG.md'), 'utf8')
    t.match(changelog, /## \[Unreleased\]\n\n## \[9\.8\.7\] - \d{4}-\d\d-\d\d\n\n### Added\n/)
    t.match(changelog, /\[9\.8\.7\]: .*v0\.1\.0\.\.\.v9\.8\.7\n/)
    t.equal(git('log', '-1', '--format=%s'), 'release: 9.8.7')
    t.equal(git('status', '--porcelain'), '')
    t.match(
      git('tag', '--list', '--format=%(refname:short) %(contents)'),
      /^v9\.8\.7[\s\S]*A thing\./,
    )
  },
)

t.test('a release needs a version, a clean tree and notes', async (t) => {
  const { git, path, release } = makeRepository(t)
  t.match(release('next'), { status: 1, stderr: 'invalid version "next"' })
  writeFileSync(path('new'), '')
  t.match(release('9.8.7'), { status: 1, stderr: 'the working tree has changes' })
  git('add', 'new')
  writeFileSync(path('CHANGELOG.md'), '# Changelog\n\n## [Unreleased]\n\n## [0.1.0]\n')
  git('commit', '--quiet', '--all', '--message', 'no notes')
  t.match(release('9.8.7'), { status: 1, stderr: 'nothing under Unreleased' })
  t.equal(git('tag', '--list'), '')
})

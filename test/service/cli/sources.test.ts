// btfmill sources: the table of sources, and the files that change it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { run } from '../../helpers/command.ts'

t.test('sources lists protocol, signing key and repositories of each version', async (t) => {
  const { status, stdout } = await run('sources')
  t.equal(status, 0)
  const line = (pattern: RegExp) => stdout.split('\n').find((one) => pattern.test(one)) ?? ''
  t.match(
    line(/debian 12/),
    /^debian +debian 12 +apt +\S*\/debian-archive-keyring\.gpg +bookworm bookworm-updates /,
  )
  t.match(line(/almalinux 9/), /^alma +almalinux 9 +rpm-md +.*RPM-GPG-KEY-AlmaLinux-9 +9 /)
  t.match(line(/^rhel +rhel 8/), /rpm-md, opt-in/)
  t.match(line(/^ubuntu-launchpad +ubuntu 20.04/), /launchpad, opt-in +not signed +focal$/)
  t.match(line(/^custom/), /files/)
})

t.test(
  'sources --json shows the changes of a sources file, and generate refuses an unknown source',
  async (t) => {
    const file = join(t.testdir({}), 'sources.json')
    writeFileSync(file, '[{"id": "alma", "keyrings": ["/nowhere/{version}.gpg"]}]')
    const { status, stdout } = await run('sources', '--json', '--sources', file)
    t.equal(status, 0)
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    t.same(
      rows.map(({ id }) => id),
      [...SOURCES.keys()],
    )
    t.match(
      rows.find(({ id }) => id === 'alma'),
      {
        distro: 'almalinux',
        protocol: 'rpm-md',
        optIn: false,
        architectures: ['x86_64', 'aarch64'],
        versions: [
          { version: '8', repositories: ['8'], keyrings: { places: ['/nowhere/8.gpg'], here: [] } },
        ],
      },
    )
    writeFileSync(file, '{')
    t.match(await run('sources', '--sources', file), {
      status: 1,
      stderr: /invalid_index: .*sources\.json/,
    })
    t.match(await run('generate', '--source', 'debian', '--source', 'debain'), {
      status: 1,
      stderr: 'unknown_source: no source has --source debain: did you mean debian?',
    })
    t.match(await run('generate', '--source', 'nowhere'), {
      status: 1,
      stderr: /unknown_source: no source has --source nowhere: there are debian, /,
    })
  },
)

t.test('serve --generate on-miss reads the sources file', async (t) => {
  const store = `file:${join(t.testdir({}), 'store')}`
  const server = ['serve', '--store', store, '--listen', '127.0.0.1:0', '--generate', 'on-miss']
  const ended = await run(...server, '--sources', '/nowhere/sources.json')
  t.match(ended, { status: 1, stderr: /invalid_index: \/nowhere\/sources\.json/ })
})

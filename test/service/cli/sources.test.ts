// btfmill sources: the table of sources, and the files that change it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { openStore, putSourceResult } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'

t.test('sources lists protocol, signing key and repositories of each version', async (t) => {
  const { status, stdout } = await run('sources', '--store', join(t.testdir({}), 'missing'))
  t.equal(status, 0)
  const line = (pattern: RegExp) => stdout.split('\n').find((one) => pattern.test(one)) ?? ''
  t.match(
    line(/debian 12/),
    /^debian +debian 12 +apt +\S*\/debian-archive-keyring\.gpg +not read yet +bookworm bookworm-updates /,
  )
  t.match(
    line(/almalinux 9/),
    /^alma +almalinux 9 +rpm-md +.*RPM-GPG-KEY-AlmaLinux-9 +not read yet +9 /,
  )
  t.match(line(/^rhel +rhel 8/), /rpm-md, opt-in/)
  t.match(
    line(/^ubuntu-launchpad +ubuntu 20.04/),
    /launchpad, opt-in +not signed +not read yet +focal$/,
  )
  t.match(line(/^custom/), /files/)
})

t.test('sources says how the indexes of each version were last read', async (t) => {
  const directory = t.testdir({})
  const store = await openStore(`file:${directory}`)
  const [at, retryAt] = ['2026-11-01T00:00:00.000Z', '2026-11-02T00:00:00.000Z']
  const failure = { code: 'unreachable', message: 'no', attempts: 1, at, retryAt } as const
  const result = { schema: 1, url: '' } as const
  const read = { ...result, readAt: '2026-11-03T00:00:00.000Z' }
  for (const suite of ['bookworm-x86_64', 'bookworm-updates-x86_64', 'trixie-x86_64'])
    await putSourceResult(store, { ...read, source: 'debian', suite })
  for (const [source, suite] of [
    ['debian', 'bookworm-security-x86_64'],
    ['alma', '9 9-aarch64'],
  ] as const)
    await putSourceResult(store, { ...result, source, suite, failure })
  const { stdout } = await run('sources', '--store', directory)
  const line = (pattern: RegExp) => stdout.split('\n').find((one) => pattern.test(one)) ?? ''
  t.match(line(/debian 12/), / 1 of 3 failed 2026-11-03: unreachable +bookworm /)
  t.match(line(/debian 13/), / read 2026-11-03 +trixie /)
  t.match(line(/almalinux 9/), / 1 of 1 failed 2026-11-01: unreachable +9 /)
  const json = await run('sources', '--store', directory, '--json')
  const alma = json.stdout.split('\n').find((one) => one.includes('"alma"'))!
  t.match(JSON.parse(alma), {
    fingerprints: ['5E9B8F5617B5066CE92057C3488FCF7C3ABB34F8'],
    versions: [{}, { results: [{ repository: '9', arch: 'aarch64', failure }] }],
  })
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
        architectures: ['x86_64', 'aarch64', 'ppc64le', 's390x'],
        versions: [
          {
            version: '8',
            repositories: ['8', '8-os', '8-rt', '8-rt-os'],
            keyrings: { places: ['/nowhere/8.gpg'], here: [] },
          },
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

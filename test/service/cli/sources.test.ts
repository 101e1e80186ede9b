// btfmill sources: the table of sources, and the files that change it.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { openStore, putSourceResult } from '../../../storage/index.ts'
import { makeRepository } from '../../helpers/apt-repository.ts'
import { run } from '../../helpers/command.ts'
import { makeSigner } from '../../helpers/signer.ts'

t.test('sources lists protocol, signing key and repositories of each version', async (t) => {
  const { status, stdout } = await run('sources', '--store', join(t.testdir({}), 'missing'))
  t.equal(status, 0)
  const line = (pattern: RegExp) => stdout.split('\n').find((one) => pattern.test(one)) ?? ''
  t.match(
    line(/debian 12/),
    /^debian +debian 12 +apt +\S*\/debian-archive-keyring\.gpg +not read yet +bookworm bookworm-updates /,
  )
  t.match(line(/almalinux 9/), /^alma +almalinux 9 +rpm-md +no key +not read yet +9 /)
  t.match(line(/^alma +4 keys/), /^alma +4 keys +btfmill sources --fetch-keys --source alma$/)
  t.match(line(/^photon +1 key/), /^photon +1 key +save it as \/etc\/pki\/rpm-gpg\/VMWARE-RPM-/)
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
            keyrings: { here: [], missing: ['5E9B8F5617B5066CE92057C3488FCF7C3ABB34F8'] },
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

t.test(
  'sources --fetch-keys keeps the keys that btfmill knows, and sources then uses them',
  async (t) => {
    const [one, two, lost, other] = [makeSigner(t), makeSigner(t), makeSigner(t), makeSigner(t)]
    const directory = t.testdir({
      'one.asc': Buffer.concat([other.armoured, one.armoured]),
      'two.gpg': readFileSync(two.keyring),
      'other.asc': other.armoured,
    })
    const rows = [
      {
        id: 'alma',
        keyrings: ['/nowhere'],
        fingerprints: [one.fingerprint, two.fingerprint],
        keyUrls: [`file://${directory}/one.asc`, `file://${directory}/two.gpg`],
      },
      {
        id: 'rocky',
        fingerprints: [lost.fingerprint],
        keyUrls: [`file://${directory}/other.asc`],
      },
    ]
    const file = join(directory, 'sources.json')
    writeFileSync(file, JSON.stringify(rows))
    const keys = join(directory, 'keys')
    const flags = ['--sources', file, '--keys', keys]
    const fetched = await run('sources', '--fetch-keys', '--source', 'alma', ...flags)
    t.match(fetched, { status: 0, stderr: '' })
    t.match(fetched.stdout, `${one.fingerprint}  alma     written  ${keys}/${one.fingerprint}.pgp`)
    t.same(readdirSync(keys).sort(), rows[0]!.fingerprints.map((key) => `${key}.pgp`).sort())

    const both = await run(
      'sources',
      '--fetch-keys',
      '--source',
      'alma',
      '--source',
      'rocky',
      ...flags,
    )
    t.equal(both.status, 1)
    t.match(both.stdout, /alma +is there already/)
    t.match(both.stdout, /rocky +not found$/m)
    t.match(both.stderr, /^btfmill: untrusted_key: .*other\.asc: expected the key .*, found /)
    const json = await run('sources', '--fetch-keys', '--source', 'rocky', ...flags, '--json')
    t.match(
      json.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
      [
        { event: 'key', state: 'missing', fingerprint: lost.fingerprint, sources: ['rocky'] },
        { event: 'failed', code: 'untrusted_key' },
      ],
    )

    const { stdout } = await run('sources', '--source', 'alma', '--source', 'rocky', ...flags)
    t.match(stdout, `almalinux 9   rpm-md    ${keys}/${one.fingerprint}.pgp  not read yet`)
    t.match(
      stdout,
      `rocky   1 key    btfmill sources --fetch-keys --source rocky --sources ${file} --keys ${keys}`,
    )
    t.notMatch(stdout, /^alma +\d key/m)
    writeFileSync(join(keys, `${two.fingerprint}.pgp`), other.armoured)
    const damaged = await run('sources', '--source', 'alma', ...flags)
    t.match(damaged.stdout, `${one.fingerprint}.pgp, 1 of 2 keys`)
  },
)

t.test("without --keys, the user's own directory of keys is used", async (t) => {
  const signer = makeSigner(t)
  const directory = t.testdir({ 'key.asc': signer.armoured })
  const file = join(directory, 'sources.json')
  const row = {
    id: 'alma',
    keyrings: ['/nowhere'],
    fingerprints: [signer.fingerprint],
    keyUrls: [`file://${directory}/key.asc`],
  }
  writeFileSync(file, JSON.stringify([row]))
  const { XDG_DATA_HOME: before } = process.env
  process.env.XDG_DATA_HOME = directory
  t.teardown(() => {
    if (before === undefined) delete process.env.XDG_DATA_HOME
    else process.env.XDG_DATA_HOME = before
  })
  t.equal((await run('sources', '--fetch-keys', '--source', 'alma', '--sources', file)).status, 0)
  const { stdout } = await run('sources', '--source', 'alma', '--sources', file)
  t.match(stdout, `${directory}/btfmill/keys/${signer.fingerprint}.pgp  not read yet`)
})

t.test('addresses of keys need TLS, and a source that does not exist is named', async (t) => {
  const file = join(t.testdir({}), 'sources.json')
  writeFileSync(file, '[{"id": "alma", "keyUrls": ["http://example.org/key"]}]')
  t.match(await run('sources', '--sources', file), {
    status: 1,
    stderr: /invalid_index: .*keyUrls/,
  })
  t.match(await run('sources', '--fetch-keys', '--source', 'almo'), {
    status: 1,
    stderr: /unknown_source: .*alma/,
  })
})

t.test(
  'a run whose keys are missing says so in its first line, and not once for each index',
  async (t) => {
    const signer = makeSigner(t)
    const directory = t.testdir({})
    const { url, source } = makeRepository(directory, { signer })
    const row = { ...source, keyrings: ['/nowhere'], fingerprints: [signer.fingerprint] }
    const published = { keyUrls: [`file://${signer.keyring}`] }
    const file = join(directory, 'sources.json')
    writeFileSync(file, JSON.stringify([{ ...row, ...published }]))
    const keys = join(directory, 'keys')
    const flags = ['--source', source.id, '--sources', file, '--keys', keys]
    const store = ['--store', join(directory, 'store'), '--mirror', url]
    const generate = ['generate', '--dry-run', ...store, ...flags]
    const command = `btfmill sources --fetch-keys --source ${source.id} --sources ${file} --keys ${keys}`
    const without = await run(...generate)
    t.equal(without.status, 1)
    t.equal(
      without.stderr.split('\n')[0],
      `no keys on this machine to check signatures of ${source.id}: run ${command}`,
    )
    t.notMatch(without.stderr, /no_keyring/)
    const events = (await run(...generate, '--json')).stdout.trim().split('\n')
    t.same(JSON.parse(events[0]!), {
      event: 'missing-keys',
      sources: [source.id],
      published: [source.id],
    })
    t.match(JSON.parse(events[1]!), { event: 'source-failed', failure: { code: 'no_keyring' } })

    t.equal((await run('sources', '--fetch-keys', ...flags)).status, 0)
    const after = await run(...generate)
    t.match(after, { status: 0, stderr: /^test bookworm i686: 0 packages/ })
  },
)

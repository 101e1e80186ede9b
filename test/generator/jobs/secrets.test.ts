// Failures that the generator really makes with a password in a URL or a file in a private directory.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { readSources } from '../../../generator/sources/sources.ts'
import { toPublic } from '../../../service/kernel/public-record.ts'
import { Catalog, SNAPSHOT_KEY } from '../../../storage/index.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const SECRET = /s3cret|private/

t.test('a failed package shows nobody its password, its token or its directory', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const server = await startServer(t, (request, response) => {
    if (request.url?.includes('cut')) {
      response.writeHead(200, { 'content-length': 1000 }).write('!<arch>')
      return void setTimeout(() => response.destroy(), 20)
    }
    response.writeHead(request.url?.includes('gone') ? 404 : 403).end()
  })
  const withPassword = server.url.replace('//', '//mill:s3cr@t%20s3cret@')
  const directory = join(runDirectory.directory, 'private place')
  mkdirSync(join(directory, 'folder.deb'), { recursive: true })
  writeFileSync(join(directory, 'broken.deb'), 'no archive')
  const inputs = [
    `${withPassword}/gone.deb?token=s3cret`,
    `${withPassword}/denied.deb`,
    `${withPassword}/cut.deb`,
    'http://mill:s3cret@127.0.0.1:1/unreachable.deb',
    'http://mill:pass/s3cret@127.0.0.1/odd.deb',
    join(directory, 'missing.deb'),
    join(directory, 'folder.deb'),
    join(directory, 'broken.deb'),
    join(directory, 'missing.vmlinux'),
  ]
  const shown: string[] = []
  for (const input of inputs)
    await runDirectory.run([input], { onEvent: (event) => shown.push(JSON.stringify(event)) })
  const records = await runDirectory.records()
  t.equal(records.length, inputs.length)
  for (const { failure, package: from } of records) {
    t.notMatch(failure?.message, SECRET, `${from.url.replace(/^.*[/]/, '')}`)
    t.notMatch(failure?.log ?? '', /s3cret/)
  }
  t.notMatch(shown.filter((line) => line.includes('failed')).join('\n'), SECRET)
  t.notMatch(JSON.stringify(records.map(toPublic)), SECRET)
  await Catalog.publish(runDirectory.store)
  const { body } = await runDirectory.store.get(SNAPSHOT_KEY)
  t.notMatch(zstdDecompressSync(Buffer.concat(await body.toArray())).toString(), SECRET)
})

t.test('a failed index shows nobody the password of its mirror', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const server = await startServer(t, (_, response) => void response.writeHead(404).end())
  const rows = [
    { id: 'alma', mirror: server.url.replace('//', '//mill:s3cret@') },
    { id: 'rocky', mirror: 'http://mill:s3cret@127.0.0.1:1' },
    { id: 'opensuse-leap', mirror: `file://${runDirectory.directory}/private` },
  ]
  const file = join(runDirectory.directory, 'sources.json')
  writeFileSync(file, JSON.stringify(rows))
  const sources = await readSources(file)
  for (const { id } of rows) {
    const source = sources.get(id)!
    const [version] = Object.keys(source.versions).slice(-1)
    await runDirectory.run(
      { sources: [source] },
      { filter: { distro: source.distro, version: version!, arch: 'x86_64' } },
    )
  }
  const failures = await runDirectory.sourceFailures()
  t.ok(new Set(failures.map(({ source }) => source)).size === 3)
  t.notMatch(JSON.stringify(failures), SECRET)
})

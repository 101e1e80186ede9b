import t from 'tap'
import {
  type BuildRecord,
  publicRecord,
  scrubbed,
  showable,
  withoutCredentials,
} from '../../storage/index.ts'

t.test('a URL is shown without credentials and query, a path without its directories', (t) => {
  for (const [location, shown] of [
    ['https://mirror.example/a/linux.deb', 'https://mirror.example/a/linux.deb'],
    ['https://mill:secret@mirror.example:8443/linux.deb', 'https://mirror.example:8443/linux.deb'],
    ['https://mill:sec@ret@mirror.example/a@b.deb', 'https://mirror.example/a@b.deb'],
    ['https://mill:sec/ret@mirror.example/linux.deb', 'https://mirror.example/linux.deb'],
    ['https://mill:sec ret@mirror.example/linux.deb', 'https://mirror.example/linux.deb'],
    ['https://mirror.example/linux.deb?token=secret#secret', 'https://mirror.example/linux.deb'],
    ['redis://:secret@queue.example:6379/1', 'redis://queue.example:6379/1'],
    ['file:///srv/secret/linux.deb', 'linux.deb'],
    ['/srv/secret/linux.deb', 'linux.deb'],
    ['../secret/linux.deb', 'linux.deb'],
    ['linux_1%3a6.1.deb', 'linux_1%3a6.1.deb'],
  ] as const)
    t.equal(showable(location), shown, location)
  t.end()
})

t.test('a text loses the credentials of its URLs and the directories of its paths', (t) => {
  for (const [text, shown] of [
    [
      'https://a:secret@m.example/x: the server answers 404',
      'https://m.example/x: the server answers 404',
    ],
    ['failed: "https://a:secret@m.example/x", again', 'failed: "https://m.example/x", again'],
    [
      'https://m.example/x?t=secret: no, https://m.example/y?t=secret.',
      'https://m.example/x: no, https://m.example/y.',
    ],
    ["ENOENT: no such file or directory, stat 'secret/x.deb'", 'ENOENT: no such file or directory'],
    ["EXDEV: no link, rename '/secret/a' -> '/secret/b'", 'EXDEV: no link'],
    ["cannot read '/srv/my secret/key.pem': denied", "cannot read 'key.pem': denied"],
    ['none of /srv/secret/a.gpg, /srv/secret/b.gpg', 'none of a.gpg, b.gpg'],
    ['file:///srv/secret/store: not a directory', 'store: not a directory'],
    ['expected usr/lib/debug/boot/vmlinux, or 1/2', 'expected usr/lib/debug/boot/vmlinux, or 1/2'],
    ['https://m.example/a/b/c and ./boot/vmlinux', 'https://m.example/a/b/c and ./boot/vmlinux'],
  ] as const)
    t.equal(scrubbed(text), shown)
  t.equal(
    withoutCredentials('https://a:secret@m.example/x, /srv/keys/a.gpg'),
    'https://m.example/x, /srv/keys/a.gpg',
  )
  t.end()
})

t.test('a text that is made to cost time is scrubbed at once', (t) => {
  const long = 200_000
  for (const text of [
    `https://m.example/x?${'"'.repeat(long)}x`,
    `https://m.example/x?${'"?.'.repeat(long)}x`,
    `https://m.example/x ${'"/'.repeat(long)}`,
    `"${'/'.repeat(long)}`,
    `/ ${'E0: '.repeat(long)}`,
    `${'a://'.repeat(long)}`,
    `a://${'@'.repeat(long)}`,
    `${'file:/'.repeat(long)}`,
  ]) {
    const { user } = process.cpuUsage()
    scrubbed(text)
    const seconds = (process.cpuUsage().user - user) / 1e6
    t.ok(seconds < 2, `${text.slice(0, 30)}…: ${seconds} s`)
  }
  t.equal(scrubbed(`${'x'.repeat(9000)} /a/b`).length, 4097, 'a long text is cut')
  t.notMatch(scrubbed(`${'x/'.repeat(2040)} https://a:${'p'.repeat(99)}@b/`), 'ppp')
  t.end()
})

t.test('a public record has no secret, even if the messages of its failures have one', (t) => {
  const message = 'https://mill:secret@mirror.example/x: /srv/secret/x is not there'
  const [code, at] = ['unreachable', '2026-11-01T00:00:00.000Z'] as const
  const record: BuildRecord = {
    schema: 1,
    kernel: { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1' },
    package: { name: 'linux', version: '1', url: 'https://x.example/l.deb', authenticated: 'none' },
    origin: 'pahole',
    tool: { name: 'pahole', version: '1.24', options: [], fingerprint: '1' },
    moduleFailures: { good: { code, message } },
    failure: { code, message, attempts: 1, at, retryAt: null },
    createdAt: at,
    updatedAt: at,
  }
  const shown = 'https://mirror.example/x: x is not there'
  const { failure, moduleFailures } = publicRecord(record)
  t.match(
    { failure, moduleFailures },
    {
      failure: { message: shown },
      moduleFailures: { good: { message: shown } },
    },
  )
  const { failure: _, ...onlyModules } = record
  t.match(publicRecord(onlyModules), { moduleFailures: { good: { message: shown } } })
  const open = publicRecord(record)
  t.equal(publicRecord(open), open, 'there is nothing left to remove')
  t.end()
})

import t from 'tap'
import { fileBelow, fileOnServer, linkBelow, urlAt } from '../../../generator/sources/location.ts'

const BASE = 'http://host.example/repo'

t.test('a path in an index must stay in its repository, and each part is escaped', (t) => {
  for (const [path, url] of [
    ['a.rpm', '/a.rpm'],
    ['./pool/a.deb', '/pool/a.deb'],
    ['x86_64/k/kernel-6.1+deb~1^2.rpm', '/x86_64/k/kernel-6.1%2Bdeb~1%5E2.rpm'],
    ['a%2Fb', '/a%252Fb'],
    ['..a/b..', '/..a/b..'],
  ] as const)
    t.equal(fileBelow(BASE, path), `${BASE}${url}`)
  for (const path of [
    '',
    '/etc/passwd',
    '../other/a.rpm',
    'a/../../b',
    'a/./b',
    'a//b',
    'file:///etc/passwd',
    'http://other.example/a.rpm',
    '//other.example/a.rpm',
    'a b',
    'a?x',
    'a#x',
    'a\\b',
    'a\nb',
    'a\0b',
    'é',
    'a/'.repeat(600),
  ])
    t.throws(
      () => fileBelow(BASE, path),
      { code: 'invalid_index' },
      JSON.stringify(path.slice(0, 20)),
    )
  t.end()
})

t.test('a path of a package may leave its repository, but not its server', (t) => {
  const base = 'https://cdn.example/2/core/2.0/x86_64/4ea4'
  for (const [path, url] of [
    ['a.rpm', '/2/core/2.0/x86_64/4ea4/a.rpm'],
    ['../../../../../blobstore/ab/kernel-4.14+1.rpm', '/blobstore/ab/kernel-4.14%2B1.rpm'],
    ['../../../../../../../a.rpm', '/a.rpm'],
    ['../https:/a.rpm', '/2/core/2.0/x86_64/https%3A/a.rpm'],
  ] as const)
    t.equal(fileOnServer(base, path), `https://cdn.example${url}`)
  for (const path of [
    '..',
    '../',
    '../a/../../b.rpm',
    '..//evil.example/a.rpm',
    '../\\evil.example/a.rpm',
    '../a.rpm?x',
    '/a.rpm',
    '//evil.example/a.rpm',
    'https://cdn.example/a.rpm',
    `../${'a/'.repeat(600)}b`,
  ])
    t.throws(() => fileOnServer(base, path), { code: 'invalid_index' }, path.slice(0, 20))
  t.throws(
    () => fileOnServer('file:///srv/repository', '../../etc/passwd'),
    { code: 'invalid_index' },
    'a local repository has no server that bounds it',
  )
  t.end()
})

t.test('a link on a page must stay in the directory of the page', (t) => {
  for (const [href, path] of [
    ['a.rpm', 'a.rpm'],
    ['./a.rpm', 'a.rpm'],
    ['/repo/a.rpm', 'a.rpm'],
    ['http://host.example/repo/a.rpm', 'a.rpm'],
    ['a%2B1.rpm', 'a+1.rpm'],
    ['sub/a.rpm?C=M;O=A#x', 'sub/a.rpm'],
    ['?C=N;O=D', ''],
  ] as const)
    t.equal(linkBelow(BASE, href)?.path, path, href)
  for (const href of [
    '../',
    '../a.rpm',
    '%2e%2e/a.rpm',
    '/a.rpm',
    '/repository/a.rpm',
    'https://host.example/repo/a.rpm',
    'http://host.example:81/repo/a.rpm',
    'http://other.example/repo/a.rpm',
    'http://me@host.example/repo/a.rpm',
    '//other.example/repo/a.rpm',
    'file:///repo/a.rpm',
    'javascript:alert(1)',
    'http://[',
    'a%zz.rpm',
  ])
    t.equal(linkBelow(BASE, href), undefined, href)
  t.end()
})

t.test('a URL in a response must have the protocol and a host of its source', (t) => {
  const api = 'https://api.host.example/devel'
  t.equal(urlAt(api, 'https://api.host.example/x?y'), 'https://api.host.example/x?y')
  const hosts = ['files.example']
  t.equal(urlAt(api, 'https://files.example/a.deb', hosts), 'https://files.example/a.deb')
  for (const url of [
    'https://files.example/a.deb',
    'http://api.host.example/x',
    'https://api.host.example.evil.example/x',
    'https://me@api.host.example/x',
    'file:///etc/passwd',
    '/x',
    '',
  ])
    t.throws(() => urlAt(api, url), { code: 'invalid_index' }, url)
  t.end()
})

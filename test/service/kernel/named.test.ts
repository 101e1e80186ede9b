// Kernels by the names that people give: releases, globs, newest, and names that are nearly right.
import t from 'tap'
import { nameOf } from '../../../service/kernel/name.ts'
import { explainNoMatch, findNamed } from '../../../service/kernel/named.ts'
import { findSimilar } from '../../../service/kernel/similar.ts'
import { Catalog, openStore, putRecord } from '../../../storage/index.ts'
import { recordOf } from '../../helpers/test-service.ts'

const store = await openStore('memory:')
const btf = {
  sha256: 'a'.repeat(64),
  size: 1,
  types: 1,
  kinds: [],
  byteOrder: 'little',
  pointerSize: 8,
}
for (const [kernel, rest] of [
  [{ release: '6.1.0-9-amd64' }, { btf }],
  [{ release: '6.1.0-10-amd64' }, { btf }],
  [{ release: '6.1.0-11-amd64' }, {}], // failed
  [{ release: '6.1.0-9-arm64', arch: 'aarch64' }, { btf }],
  [{ release: '5.14.0-1.el9', distro: 'almalinux', version: '9' }, { btf }],
  [{ release: '5.14.0-1.el9', distro: 'rocky', version: '9' }, { btf }],
] as const)
  await putRecord(store, recordOf(kernel, rest as object))
const catalog = await Catalog.open(store)
const named = (text: string): string => nameOf(findNamed(catalog, text))

t.test(
  'a kernel is found by its full name, its release, a glob that matches one, or newest',
  async (t) => {
    t.equal(named('6.1.0-9-arm64'), 'debian/12/aarch64/6.1.0-9-arm64')
    t.equal(named('debian/12/arm64/*'), 'debian/12/aarch64/6.1.0-9-arm64')
    t.equal(named('*-9-amd64'), 'debian/12/x86_64/6.1.0-9-amd64')
    t.equal(named('rocky/9/x86_64/5.14.0-1.el9'), 'rocky/9/x86_64/5.14.0-1.el9')
    t.equal(named('rocky/*/*/*'), 'rocky/9/x86_64/5.14.0-1.el9')
    t.equal(named('newest'), 'debian/12/x86_64/6.1.0-10-amd64', 'numbers are compared as numbers')
    t.equal(named('debian/*/aarch64/newest'), 'debian/12/aarch64/6.1.0-9-arm64')
  },
)

t.test('kernels with BTF come before others, which are found if there are no others', async (t) => {
  t.equal(named('6.1.0-1*-amd64'), 'debian/12/x86_64/6.1.0-10-amd64')
  t.equal(named('6.1.0-11-amd64'), 'debian/12/x86_64/6.1.0-11-amd64')
})

t.test('a name of several kernels lists them, at most ten', async (t) => {
  t.throws(() => named('5.14.0-1.el9'), {
    code: 'ambiguous',
    message:
      '"5.14.0-1.el9" names 2 kernels: almalinux/9/x86_64/5.14.0-1.el9, rocky/9/x86_64/5.14.0-1.el9',
  })
  const many = await openStore('memory:')
  for (let i = 0; i < 12; i++) await putRecord(many, recordOf({ release: `6.${i}` }))
  const all = await Catalog.open(many)
  t.throws(() => findNamed(all, '6.*'), {
    code: 'ambiguous',
    message: /^"6\.\*" names 12 .*, and 2 more$/,
  })
})

t.test('a name of no kernel lists the names near it', async (t) => {
  const unknown = (text: string, message: string) =>
    t.throws(() => named(text), {
      code: 'unknown_kernel',
      message: new RegExp(RegExp.escape(message)),
    })
  unknown('6.1.0-90-amd64', 'did you mean 6.1.0-10-amd64, 6.1.0-9-amd64, or 6.1.0-11-amd64?')
  unknown('5.14.0', 'did you mean 5.14.0-1.el9?')
  unknown('debian/12/x86_46/6.1.0-9-amd64', 'did you mean debian/12/x86_64/6.1.0-9-amd64')
  for (const text of ['', 'nothing like it', 'a/b', 'a/b/c/d/e', 'a//c/d'])
    unknown(text, 'expected DISTRO/VERSION/ARCH/RELEASE, a release, newest, or a glob')
})

t.test('the first filter that matches nothing is named, with values near it', async (t) => {
  t.same(explainNoMatch(catalog, { distro: 'debian', version: '13', release: 'x' }), {
    ...{ field: 'version', value: '13', similar: ['12'], values: ['12'] },
  })
  t.match(explainNoMatch(catalog, { distro: 'rocky', arch: 'arm64' }), {
    field: 'arch',
    similar: [],
  })
  t.match(explainNoMatch(catalog, { release: '6.2*' }), { field: 'release' })
  t.equal(
    explainNoMatch(await Catalog.open(await openStore('memory:')), { distro: 'x' }),
    undefined,
  )
})

t.test(
  'near names differ in a third of their letters at most, or contain the wanted one',
  async (t) => {
    const names = ['debian', 'ubuntu', 'fedora', 'centos', 'centos-stream']
    t.same(findSimilar('debain', names), ['debian'])
    t.same(findSimilar('UBUNTU', names), ['ubuntu'])
    t.same(findSimilar('cent', names), ['centos', 'centos-stream'])
    t.same(findSimilar('fedroa', names), ['fedora'], 'two swapped letters are one error')
    t.same(findSimilar('arch', names), [])
    t.same(findSimilar('', names), [])
    t.same(findSimilar('aaab', ['aaaa', 'aaac', 'aaad', 'aaae']), ['aaaa', 'aaac', 'aaad'], 'three')
  },
)

t.test('the search for near names is bounded', async (t) => {
  const long = 'x'.repeat(101)
  t.same(findSimilar(long, [long]), [])
  function* endless() {
    for (;;) yield 'x'.repeat(100_000)
  }
  t.same(findSimilar('y'.repeat(100), endless()), [])
})

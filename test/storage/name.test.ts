// Tests the encoding of names as segments of keys, file names and URLs, and the keys of the store's layout.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  blobKey,
  buildOf,
  decodeName,
  encodeName,
  kernelPrefix,
  recordKey,
  sourceResultKey,
} from '../../storage/index.ts'
import { isKey } from '../../storage/name.ts'
import { storeError } from '../helpers/store-contract.ts'

/** Real and hostile names, with their segments. */
const NAMES = {
  '6.12.107+deb13-amd64': '6.12.107+deb13-amd64',
  '6.1.0-49-686-pae': '6.1.0-49-686-pae',
  '5.10.0-0.deb10.16~bpo10+1-amd64': '5.10.0-0.deb10.16~bpo10+1-amd64',
  '2:5.4~rc1': '2%3A5.4~rc1',
  '4.14.355-275.572.amzn2.x86_64': '4.14.355-275.572.amzn2.x86_64',
  '5.15.0-1.el9_0': '5.15.0-1.el9_0',
  '.hidden': '%2Ehidden',
  '...': '%2E..',
  'a.b.': 'a.b.',
  'a/b': 'a%2Fb',
  '../../etc/passwd': '%2E.%2F..%2Fetc%2Fpasswd',
  'a\\b': 'a%5Cb',
  'a b': 'a%20b',
  '%': '%25',
  '%2F': '%252F',
  '%2e%2e': '%252e%252e',
  'a\0b': 'a%00b',
  'a\r\nb': 'a%0D%0Ab',
  'a?b#c&d': 'a%3Fb%23c%26d',
  '"quoted"': '%22quoted%22',
  bäh: 'b%C3%A4h',
  内核: '%E5%86%85%E6%A0%B8',
  '🐝': '%F0%9F%90%9D',
} as const

t.test('decodeName inverts encodeName, and no two names share a segment', async (t) => {
  for (const [name, segment] of Object.entries(NAMES)) {
    t.equal(encodeName(name), segment)
    t.equal(decodeName(segment), name)
    t.ok(isKey(`a/${segment}`))
  }
  t.equal(new Set(Object.values(NAMES)).size, Object.keys(NAMES).length, 'no two names share one')
})

t.test('every character survives encoding, alone and inside a name', async (t) => {
  const wrong: string[] = []
  for (let code = 0; code <= 0xffff; code++) {
    const char = String.fromCharCode(code)
    if (char === '.' || !char.isWellFormed()) continue
    for (const name of [char, `a${char}b`]) {
      const segment = encodeName(name)
      if (decodeName(segment) !== name || !/^[\w.+~%-]+$/.test(segment)) wrong.push(name)
    }
  }
  t.same(wrong, [])
})

t.test('a segment passes through a URL and a file system unchanged', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-name-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  for (const segment of Object.values(NAMES)) {
    t.equal(new URL(`http://127.0.0.1/v1/${segment}/end`).pathname, `/v1/${segment}/end`)
    writeFileSync(join(directory, segment), '')
    t.ok(existsSync(join(directory, segment)), segment)
  }
})

t.test('encodeName rejects empty, dot-only, ill-formed and too long names', async (t) => {
  for (const name of ['', '.', '..', '\ud800', 'a\udfffb', 'n'.repeat(256), ':'.repeat(86)])
    t.throws(() => encodeName(name), storeError('invalid_key'), JSON.stringify(name.slice(0, 20)))
  t.equal(encodeName('n'.repeat(255)).length, 255)
  t.equal(encodeName(':'.repeat(85)).length, 255)
})

t.test('decodeName and isKey reject a segment that encodeName cannot have made', async (t) => {
  const unclean = ['a%2fb', '%61', 'a:b', 'a b', 'ä', 'a/b', '.a', '\0', 'a\n']
  const broken = [
    '',
    '.',
    '..',
    '%',
    '%2',
    '%2G',
    '%FF',
    '%C3',
    '%E2%82',
    '%ED%A0%80',
    '%2E',
    '%2E.',
  ]
  for (const segment of [...unclean, ...broken, '%2E%2E', 'n'.repeat(256), '%'.repeat(1e6)]) {
    const name = JSON.stringify(segment.slice(0, 20))
    t.throws(() => decodeName(segment), storeError('invalid_key'), name)
    t.notOk(isKey(`a/${segment}`) && !segment.includes('/'), name)
  }
})

const kernel = { distro: 'debian', version: '13', arch: 'x86_64', release: '6.12.107+deb13-amd64' }
const prefix = 'kernels/debian/13/x86_64/6.12.107+deb13-amd64/'

t.test('the key functions make the documented keys and reject invalid parts', async (t) => {
  t.equal(kernelPrefix(kernel), prefix)
  t.equal(recordKey(kernel, '2:6.12~rc1-1'), `${prefix}2%3A6.12~rc1-1.json`)
  t.equal(recordKey({ ...kernel, release: 'a/../b' }, 'c').split('/').length, 6)
  t.equal(sourceResultKey('debian', '../x'), 'sources/debian/%2E.%2Fx.json')
  const sha256 = '0f'.repeat(32)
  t.equal(blobKey(sha256), `blobs/0f/${sha256}.btf.zst`)
  for (const digest of ['', '../x', sha256.slice(1), sha256.toUpperCase(), `${sha256}\n`])
    t.throws(() => blobKey(digest), storeError('invalid_key'), JSON.stringify(digest))
  for (const field of ['distro', 'version', 'arch', 'release'])
    for (const name of ['', '..', 'n'.repeat(256)])
      t.throws(() => kernelPrefix({ ...kernel, [field]: name }), storeError('invalid_key'))
})

t.test(
  'buildOf takes the package version, without it the build-id, and without that the BTF digest',
  async (t) => {
    const named = { name: 'p', url: '', authenticated: 'none' } as const
    const btf = { sha256: 'ab'.repeat(32), size: 1, types: 1, kinds: [] }
    const measured = { ...btf, byteOrder: 'little', pointerSize: 8 } as const
    const built = { ...kernel, buildId: 'c0ffee' }
    const [versioned, nameless] = [
      { ...named, version: '1:2' },
      { ...named, version: '' },
    ]
    t.equal(buildOf({ kernel: built, package: versioned, btf: measured }), '1:2')
    t.equal(buildOf({ kernel: built, package: nameless, btf: measured }), 'c0ffee')
    t.equal(buildOf({ kernel, package: nameless, btf: measured }), `btf-${'ab'.repeat(8)}`)
    t.throws(() => buildOf({ kernel, package: nameless }), storeError('invalid_record'))
  },
)

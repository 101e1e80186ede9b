// The archive tree of a store, served by a static web server without btfmill, is a BTFHub mirror.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import {
  type BuildRecord,
  Catalog,
  generateKeys,
  openStore,
  publishArchive,
  putRecord,
} from '../../../storage/index.ts'
import { startNginx } from '../../helpers/nginx.ts'
import { btfOf, RAW, recordOf } from '../../helpers/test-service.ts'

const run = promisify(execFile)

const directory = mkdtempSync(join(tmpdir(), 'mirror-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const at = (path: string) => join(directory, path)

/** Kernels with their BTF and the path that BTFHub's clients request: `<ID>/<VER>/<ARCH>/<K>`. */
const KERNELS: readonly [BuildRecord['kernel'], Buffer, string][] = [
  [
    { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-54-cloud-amd64' },
    RAW.little,
    'debian/12/x86_64/6.1.0-54-cloud-amd64',
  ],
  [
    { distro: 'debian', version: '13', arch: 'x86_64', release: '6.12.107+deb13-amd64' },
    RAW.little,
    'debian/13/x86_64/6.12.107+deb13-amd64',
  ],
  [
    { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: '5.4.0-1001-aws' },
    RAW.big,
    'ubuntu/20.04/arm64/5.4.0-1001-aws',
  ],
]

const { publicKey, secretKey } = generateKeys()
const store = await openStore(`file:${at('store')}`)
for (const [kernel, raw] of KERNELS)
  await putRecord(store, recordOf(kernel, { btf: await btfOf(store, raw) }))
await publishArchive(store, await Catalog.publish(store), { secretKey })
const base = await startNginx(t, at('store/archive'))

/** Does what BTFHub's clients do: a HEAD request, a GET request, and one file from the tar. */
async function fetchAsClient(url: string, release: string): Promise<Buffer> {
  await run('wget', ['--quiet', '--spider', `${url}.btf.tar.xz`])
  await run('wget', ['--quiet', '--output-document', at('btf.tar.xz'), `${url}.btf.tar.xz`])
  await run('tar', ['xJf', at('btf.tar.xz'), '-C', directory])
  return readFileSync(at(`${release}.btf`))
}

for (const [{ release }, raw, path] of KERNELS)
  t.test(`a client of BTFHub gets the BTF at ${path}`, async (t) => {
    t.ok((await fetchAsClient(`${base}/${path}`, release)).equals(raw))
    const escaped = path.replaceAll('+', '%2B')
    t.ok((await fetchAsClient(`${base}/${escaped}`, release)).equals(raw), escaped)
  })

t.test('a client of BTFHub gets an error for a kernel that the tree lacks', async (t) => {
  const url = `${base}/debian/12/x86_64/6.1.0-99-amd64`
  const notFound = 8 // exit status of wget for an error response
  await t.rejects(fetchAsClient(url, '6.1.0-99-amd64'), { code: notFound })
})

t.test(
  'the manifest lists each archive with its digest, and minisign verifies its signature',
  async (t) => {
    for (const file of ['manifest.json', 'manifest.json.minisig'])
      await run('wget', ['--quiet', '--directory-prefix', directory, `${base}/${file}`])
    writeFileSync(at('mirror.pub'), publicKey)
    const verify = () => run('minisign', ['-V', '-m', at('manifest.json'), '-p', at('mirror.pub')])
    t.match((await verify()).stdout, /Signature and comment signature verified/)

    const { files } = JSON.parse(readFileSync(at('manifest.json'), 'utf8'))
    const paths = KERNELS.map(([, , path]) => `${path}.btf.tar.xz`)
    t.same(Object.keys(files).sort(), paths.sort())
    for (const path of paths) {
      const bytes = Buffer.from(await (await fetch(`${base}/${path}`)).arrayBuffer())
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      t.match(files[path], { sha256, size: bytes.length })
    }

    appendFileSync(at('manifest.json'), '\n')
    await t.rejects(verify(), /Signature verification failed/)
  },
)

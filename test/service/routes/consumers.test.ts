// Agents that download BTF from other services, replayed step by step from their source against our routes:
// ptcpdump (internal/btf/btf.go), kyanos (agent/loader), and Datadog's agent (pkg/ebpf, BTF by remote configuration).
// Their HTTP client is Go's: it requests gzip, decodes it, follows redirects, and sends names in URLs unescaped.
// LoongCollector's installer (loongcollector.sh, check_or_prepare_vmlinux) has curl or wget.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { extract } from 'tar-stream'
import { isElf, readBtf } from '../../../bpf/index.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

/** A machine as these agents see it: os-release, `uname -r`, and Go's name for the architecture. */
interface Machine {
  id: string
  versionId: string
  release: string
  goarch: 'amd64' | 'arm64'
}

const ANOLIS = { id: 'anolis', versionId: '8.6', release: '4.19.91-26.an8.x86_64', goarch: 'amd64' }
const UBUNTU = { id: 'ubuntu', versionId: '20.04', release: '5.4.0-1001+aws', goarch: 'arm64' }
const CENTOS = { id: 'centos', versionId: '7', release: '3.10.0-1160.el7.x86_64', goarch: 'amd64' }
/** A machine whose BTF is nowhere. */
const NOBODYS = { ...UBUNTU, release: '5.4.0-9999-aws' }

const testService = await startTestService(t, async (store) => {
  const [little, big] = [await btfOf(store, RAW.little), await btfOf(store, RAW.big)]
  const centos = { distro: 'centos', version: '7', release: CENTOS.release }
  return [
    recordOf({ distro: 'anolis', version: '8.6', release: ANOLIS.release }, { btf: little }),
    recordOf(
      { distro: 'ubuntu', version: '20.04', arch: 'aarch64', release: UBUNTU.release },
      { btf: big },
    ),
    recordOf(centos, { btf: little }),
  ]
})

/** Go's http.Get; any status but 200 is an error for these agents. */
async function httpGet(url: string): Promise<Buffer> {
  const { status, headers, bytes } = await ask(url, {
    'user-agent': 'Go-http-client/1.1',
    'accept-encoding': 'gzip',
  })
  if (status !== 200) throw new Error(`status code is not 200: ${status}`)
  return headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes
}

/** The first regular file of a tar that ends with `.btf`. */
async function btfInTar(tar: Buffer): Promise<Buffer> {
  const reader = extract()
  reader.end(tar)
  for await (const entry of reader) {
    const { type, name } = entry.header
    if (type === 'file' && name.endsWith('.btf')) return await buffer(entry)
    entry.resume()
  }
  throw new Error('no BTF in it')
}

async function unxz(t: Test, bytes: Buffer): Promise<Buffer> {
  const file = join(t.testdir({}), 'file.xz')
  writeFileSync(file, bytes)
  return (await run('xz', ['-dc', file], { encoding: 'buffer', maxBuffer: 1e9 })).stdout
}

/** How both search BTF: OpenAnolis' mirror, then BTFHub. Gives where they found it and what they load. */
async function load(t: Test, { id, versionId, release, goarch }: Machine, steps: string[] = []) {
  const arch = goarch === 'amd64' ? 'x86_64' : goarch
  try {
    steps.push('OpenAnolis')
    const machine = arch === 'arm64' ? 'aarch64' : arch
    return await httpGet(`${testService.url}/coolbpf/btf/${machine}/vmlinux-${release}`)
  } catch {
    steps.push('BTFHub')
    const archive = await httpGet(
      `${testService.url}/${id}/${versionId}/${arch}/${release}.btf.tar.xz`,
    )
    return await btfInTar(await unxz(t, archive))
  }
}

for (const agent of ['ptcpdump', 'kyanos'])
  t.test(`${agent} finds BTF on OpenAnolis' mirror, then on BTFHub`, async (t) => {
    const machines = [
      [ANOLIS, RAW.little],
      [UBUNTU, RAW.big],
      [CENTOS, RAW.little],
    ] as const
    for (const [machine, raw] of machines) {
      const loaded = await load(t, machine as Machine)
      t.ok(loaded.equals(raw), machine.release)
      t.equal(isElf(loaded), false, 'raw, which they try first')
      t.ok(readBtf(loaded).typeCount > 0)
    }
    const steps: string[] = []
    await t.rejects(load(t, NOBODYS as Machine, steps), { message: 'status code is not 200: 404' })
    t.same(steps, ['OpenAnolis', 'BTFHub'])
  })

t.test(
  'kyanos falls back to BTFHub when two distributions have a kernel of one name',
  async (t) => {
    const twin = await startTestService(t, async (store) => [
      recordOf(
        { distro: 'debian', version: '12', release: 'x' },
        { btf: await btfOf(store, RAW.big) },
      ),
      recordOf(
        { distro: 'kali', version: '1', release: 'x' },
        { btf: await btfOf(store, RAW.little) },
      ),
    ])
    const { status } = await ask(`${twin.url}/coolbpf/btf/x86_64/vmlinux-x`)
    t.equal(status, 409, 'not 200: they ask BTFHub then')
    const { bytes } = await ask(`${twin.url}/kali/1/x86_64/x.btf.tar.xz`)
    t.ok((await btfInTar(await unxz(t, bytes))).equals(RAW.little))
  },
)

t.test("LoongCollector finds BTF in SysOM's bucket, then on OpenAnolis' mirror", async (t) => {
  const directory = t.testdir({})
  const machines = [
    [ANOLIS, 'x86_64', RAW.little],
    [UBUNTU, 'aarch64', RAW.big],
  ] as const
  for (const [{ release }, arch, raw] of machines)
    for (const address of ['home/hive/btf', 'coolbpf/btf', 'newest/home/hive/btf']) {
      const file = join(directory, 'vmlinux')
      const url = `${testService.url}/${address}/${arch}/vmlinux-${release}`
      await run('curl', ['--silent', '--fail', '--output', file, url])
      t.ok(readFileSync(file).equals(raw), `${address} ${release}`)
    }
  const none = `${testService.url}/home/hive/btf/x86_64/vmlinux-${NOBODYS.release}`
  await t.rejects(run('curl', ['--silent', '--fail', none]), { code: 22 })
})

/** The catalogue's architectures by Go's names, and the content of a configuration. */
type Catalogue = Record<string, Record<string, Record<string, Record<string, { sha256: string }>>>>

/** The agent accepts an archive only with the catalogue's digest; then it unpacks it and loads `<K>/<K>.btf`. */
async function loadByCatalogue(t: Test, catalogue: Catalogue, machine: Machine): Promise<Buffer> {
  const { id, versionId, release, goarch } = machine
  const arch = goarch === 'amd64' ? 'x86_64' : 'arm64'
  const entry = catalogue[arch]?.[id]?.[versionId]?.[release]
  if (!entry) throw new Error('no entry')
  const archive = await httpGet(
    `${testService.url}/btfs/${id}/${versionId}/${arch}/${release}.btf.tar.xz`,
  )
  const sha256 = createHash('sha256').update(archive).digest('hex')
  if (sha256 !== entry.sha256) throw new Error(`hash mismatch: ${sha256}, not ${entry.sha256}`)
  const directory = join(t.testdir({}), release)
  mkdirSync(directory)
  writeFileSync(join(directory, 'archive'), archive)
  await run('tar', ['-xJf', join(directory, 'archive'), '-C', directory])
  return readFileSync(join(directory, `${release}.btf`))
}

t.test(
  "Datadog's agent reads the catalogue, then accepts the archive with that digest",
  async (t) => {
    const read = () => ask(`${testService.url}/btfs/catalog.json`, { 'accept-encoding': 'gzip' })
    const { json } = await until(read, ({ headers }) => headers['btfmill-missing'] === '0')
    const catalogue = json as Catalogue
    t.ok((await loadByCatalogue(t, catalogue, UBUNTU as Machine)).equals(RAW.big))
    t.ok((await loadByCatalogue(t, catalogue, CENTOS as Machine)).equals(RAW.little))
    await t.rejects(loadByCatalogue(t, catalogue, NOBODYS as Machine), { message: 'no entry' })
    const wrong = structuredClone(catalogue)
    wrong.x86_64!.centos!['7']![CENTOS.release]!.sha256 = 'badsum'
    await t.rejects(loadByCatalogue(t, wrong, CENTOS as Machine), { message: /hash mismatch/ })
  },
)

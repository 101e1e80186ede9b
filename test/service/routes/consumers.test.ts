// Agents that download BTF from other services, replayed step by step from their source against our routes.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { isElf, readBtf } from '../../../bpf/index.ts'
import {
  btfInTar,
  type Catalogue,
  loadLikeDatadog,
  loadLikeLoongCollector,
  loadLikePtcpdump,
  type Machine,
  unxz,
} from '../../helpers/agents.ts'
import { ask, btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

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

for (const agent of ['ptcpdump', 'kyanos'])
  t.test(`${agent} finds BTF on OpenAnolis' mirror, then on BTFHub`, async (t) => {
    const machines = [
      [ANOLIS, RAW.little],
      [UBUNTU, RAW.big],
      [CENTOS, RAW.little],
    ] as const
    for (const [machine, raw] of machines) {
      const loaded = await loadLikePtcpdump(t, testService.url, machine as Machine)
      t.ok(loaded.equals(raw), machine.release)
      t.equal(isElf(loaded), false, 'raw, which they try first')
      t.ok(readBtf(loaded).typeCount > 0)
    }
    const steps: string[] = []
    const missing = loadLikePtcpdump(t, testService.url, NOBODYS as Machine, steps)
    await t.rejects(missing, { message: 'status code is not 200: 404' })
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
  const machines = [
    [ANOLIS, RAW.little],
    [UBUNTU, RAW.big],
  ] as const
  for (const [machine, raw] of machines)
    for (const address of ['home/hive/btf', 'coolbpf/btf', 'newest/home/hive/btf']) {
      const loaded = await loadLikeLoongCollector(t, testService.url, machine as Machine, address)
      t.ok(loaded.equals(raw), `${address} ${machine.release}`)
    }
  const none = `${testService.url}/home/hive/btf/x86_64/vmlinux-${NOBODYS.release}`
  await t.rejects(run('curl', ['--silent', '--fail', none]), { code: 22 })
})

t.test(
  "Datadog's agent reads the catalogue, then accepts the archive with that digest",
  async (t) => {
    const read = () => ask(`${testService.url}/btfs/catalog.json`, { 'accept-encoding': 'gzip' })
    const { json } = await until(read, ({ headers }) => headers['btfmill-missing'] === '0')
    const catalogue = json as Catalogue
    const load = (machine: object, known = catalogue) =>
      loadLikeDatadog(t, testService.url, machine as Machine, known)
    t.ok((await load(UBUNTU)).equals(RAW.big))
    t.ok((await load(CENTOS)).equals(RAW.little))
    await t.rejects(load(NOBODYS), { message: 'no entry' })
    const wrong = structuredClone(catalogue)
    wrong.x86_64!.centos!['7']![CENTOS.release]!.sha256 = 'badsum'
    await t.rejects(load(CENTOS, wrong), { message: /hash mismatch/ })
  },
)

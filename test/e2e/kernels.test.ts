// Real Debian kernels from a mirror: one without BTF, up to a running guest; one with the other byte order; and one with
// BTF of its own, to compare with ours. Downloads stop when vmlinux is complete.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { parseBtf } from '../../bpf/index.ts'
import { jobOfFile } from '../../generator/jobs/job.ts'
import { encodeBtf, findPahole } from '../../generator/jobs/pahole.ts'
import { fetchVmlinux } from '../../generator/packages/fetch.ts'
import { findDebianPackages } from '../../generator/prove/package.ts'
import { withScratch } from '../../generator/scratch.ts'
import { getBlob, matchGlob, openStore } from '../../storage/index.ts'
import { serve } from './btfmill.ts'
import { differences, readLayouts } from './layout.ts'
import { bootGuest, buildGuest, fetchBack, generateNewest, RUNS_OF_C } from './path.ts'
import { TARGETS } from './target.ts'

const online =
  process.env.BTFMILL_OFFLINE === '1'
    ? { skip: 'BTFMILL_OFFLINE=1: needs the mirror of a distribution' }
    : {}
const MAX_DOWNLOAD = 400e6
const debian12 = { distro: 'debian', version: '12' }

/** bytes of packages downloaded by this file */
let downloaded = 0

t.test(
  'a CO-RE program runs on a kernel without BTF, with BTF made from its package',
  online,
  (t) =>
    withScratch(undefined, async (dir) => {
      const target = TARGETS.i686
      const url = `file:${join(dir, 'store')}`
      const store = await openStore(url)
      const { record, read } = await generateNewest(store, {
        ...debian12,
        arch: target.arch,
        release: target.releases[12],
      })
      downloaded += read
      t.match(record, { embedded: false, package: { authenticated: 'prefix' } })
      t.match(record.btf, { byteOrder: 'little', pointerSize: 4 })
      t.ok(read < record.package.size! / 4, `read ${read} of ${record.package.size} bytes`)

      const server = await serve(url)
      t.teardown(() => server.stop())
      const btf = join(dir, 'fetched.btf')
      await fetchBack(server, record, btf)

      const built = await buildGuest(target, record, { btf, store: url }, dir)
      downloaded += built.downloaded
      const console = await bootGuest(built.guest, server.port)
      t.match(console, { release: record.kernel.release, embedded: false })
      t.same(
        [...console.runs].map(([name, { reported }]) => [name, reported.length]),
        [['none', 0], ...RUNS_OF_C.map((name) => [name, 2])],
      )
    }),
)

t.test('BTF of a big-endian kernel is big-endian, and bpftool reads it', online, (t) =>
  withScratch(undefined, async (dir) => {
    const store = await openStore(`file:${join(dir, 'store')}`)
    const filter = { ...debian12, arch: 's390x', release: '6.1.0-*[0-9]-s390x' }
    const { record, read } = await generateNewest(store, filter)
    downloaded += read
    t.match(record.btf, { byteOrder: 'big', pointerSize: 8 })
    const raw = await getBlob(store, record.btf.sha256)
    t.equal(raw.readUInt16BE(0), 0xeb9f)
    t.equal(parseBtf(raw).typeCount, record.btf.types)
    const btf = join(dir, 'btf')
    await writeFile(btf, raw)
    const [task] = (await readLayouts(btf)).get('STRUCT task_struct') ?? []
    t.match(task, / pid@\d+:0 tgid@\d+:0 /, 'bpftool reads it too')
  }),
)

t.test("our BTF has the same layouts as the kernel's own", online, (t) =>
  withScratch(undefined, async (dir) => {
    const name = 'linux-image-6.1.0-*[0-9]-cloud-amd64-dbg'
    const [pkg] = await findDebianPackages({ ...debian12, arch: 'x86_64' }, (other) =>
      matchGlob(name, other),
    )
    const [vmlinux, btf] = [join(dir, 'vmlinux'), join(dir, 'btf')]
    const options = { earlyStop: true, onProgress() {} }
    const fetched = await fetchVmlinux(jobOfFile(pkg!.url, debian12), { vmlinux }, options)
    await fetched.vmlinux
    downloaded += (await fetched.done).read
    await encodeBtf(await findPahole(), vmlinux, btf)

    const [own, ours] = [await readLayouts(vmlinux), await readLayouts(btf)]
    t.ok(own.size > 5000)
    t.same(differences(own, ours), [])
    t.comment(`${pkg!.name}: ${ours.size} of ${own.size} named structs and unions are the same`)
  }),
)

t.test('together these tests download less than the limit', online, async (t) => {
  t.comment(`${(downloaded / 1e6).toFixed(0)} MB of packages`)
  t.ok(downloaded < MAX_DOWNLOAD)
})

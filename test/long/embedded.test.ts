// The own BTF of real Debian kernels, from headers where they have it, and from one image of each format.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseBtf } from '../../bpf/index.ts'
import { generate, type OnEvent } from '../../generator/index.ts'
import { Catalog, getBlob, openStore } from '../../storage/index.ts'

/** Kernels with BTF of their own. Images are compressed with lz4, zstd, xz or gzip, or flat, with or without a header. */
const KERNELS = [
  { version: '11', arch: 'x86_64', release: '5.10.*-cloud-amd64' },
  { version: '12', arch: 'x86_64', release: '6.1.*-cloud-amd64' },
  { version: '13', arch: 'x86_64', release: '6.12.*-cloud-amd64' },
  { version: '13', arch: 'x86_64', release: '7.*-cloud-amd64' },
  { version: '12', arch: 'aarch64', release: '6.1.*-cloud-arm64' },
  { version: '13', arch: 'aarch64', release: '7.*-cloud-arm64' },
  { version: '13', arch: 'riscv64', release: '6.12.*-riscv64' },
  { version: '13', arch: 's390x', release: '6.12.107*-s390x' },
]

t.test("a kernel's own BTF is taken from its headers or image, without pahole", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'images-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const store = await openStore(`file:${join(directory, 'store')}`)
  const cache = join(directory, 'indexes')
  let had = 0
  for (const kernel of KERNELS) {
    const filter = { distro: 'debian', ...kernel }
    let [read, pahole] = [0, false]
    const onEvent: OnEvent = (event) => {
      if (event.event === 'published') read = event.read
      if (event.event === 'stage') pahole ||= event.stage === 'pahole'
    }
    const summary = await generate({ store, filter, limit: 1, cache, onEvent })
    if (summary.published === 0) {
      t.comment(`${kernel.release} ${kernel.arch} is not available now: ${JSON.stringify(summary)}`)
      continue
    }
    had++
    const name = `${kernel.arch} ${kernel.release}`
    t.notOk(pahole, name)
    const [entry] = [...(await Catalog.open(store)).list(filter)]
    const { record } = entry!
    t.match(record, { origin: 'embedded', embedded: true, package: { authenticated: 'index' } })
    t.match(record.kernel, { unameVersion: /^#\d+ SMP/ }, name)
    if (!record.package.name.startsWith('linux-headers-'))
      t.match(record.kernel, { buildId: /^[0-9a-f]{40}$/ }, name)
    const btf = parseBtf(await getBlob(store, record.btf!.sha256))
    t.ok(
      btf.typeCount > 50_000,
      `${name}: ${btf.typeCount} types, ${(read / 1e6).toFixed(0)} MB read`,
    )
  }
  t.ok(had >= 6, `${had} kernels were available`)
})

/*
 * Runs from packages to a store, and each way in which one can fail, by real bad input: whatever it is, it has its
 * code, the catalog shows it, nothing of it is left on disk, and the other packages of the run are not touched.
 */
import { execFileSync } from 'node:child_process'
import { openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { GenerateOptions, OnEvent } from '../../../generator/index.ts'
import { PAHOLE_LIMITS } from '../../../generator/jobs/pahole.ts'
import type { BuildRecord, FailureCode } from '../../../storage/index.ts'
import { makeRepository, type Repository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { type Mill, makeMill } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import {
  BUILD_ID,
  type ImageOptions,
  makeVmlinux,
  manyStructs,
  nestedBlocks,
  RELEASE,
} from '../../helpers/vmlinux.ts'

/** A package around an image that is made for it. */
function packageWith(mill: Mill, image: ImageOptions = {}): string {
  const path = join(mill.directory, 'vmlinux')
  makeVmlinux(path, image)
  return makePackage(mill.directory, path, image.release ? { release: image.release } : {})
}

/** Runs and asserts that it fails so, and what is there afterwards. */
async function fails(
  t: Test,
  mill: Mill,
  from: Repository | readonly string[],
  code: FailureCode,
  message: RegExp,
  options: Partial<GenerateOptions> = {},
): Promise<BuildRecord> {
  const summary = await mill.run(from, options)
  t.match(summary, { published: 0, failed: { [code]: 1 } })
  const records = await mill.records()
  t.equal(records.length, 1)
  const [record] = records
  t.match(record, {
    kernel: { release: RELEASE, arch: 'i686' },
    failure: { code, message, attempts: 1 },
    btf: undefined,
  })
  t.same(await mill.leftovers(), [])
  return record!
}

const signer = makeSigner(t)

t.test('a package becomes a record and a blob, and the same package the same bytes', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const repository = makeRepository(mill.directory, { packages: [file], signer })
  const summary = { skipped: 0, postponed: 0, failed: {}, sourcesFailed: 0, left: 0, queued: 0 }
  t.same(await mill.run(repository), { published: 1, ...summary })
  const [record] = await mill.records()
  t.match(record, {
    kernel: {
      distro: 'debian',
      version: '12',
      arch: 'i686',
      release: RELEASE,
      buildId: BUILD_ID,
      unameVersion: '#1 SMP Debian 6.1.9-1 (2023-02-01)',
    },
    package: { version: '6.1.9-1', size: statSync(file).size, authenticated: 'index' },
    embedded: false,
    origin: 'pahole',
    btf: { byteOrder: 'little', pointerSize: 4 },
    failure: undefined,
  })
  const { sha256 } = record!.btf!
  t.same(await mill.leftovers(), [`store/blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`])
  t.same(await mill.run(repository), { published: 0, ...summary, skipped: 1 }, 'it is there now')

  const again = await makeMill(t)
  await again.run(repository)
  t.equal((await again.records())[0]?.btf?.sha256, sha256, 'made twice')
})

t.test('a big-endian image without a package, named by its banner', async (t) => {
  const mill = await makeMill(t)
  const path = join(mill.directory, 'vmlinux')
  makeVmlinux(path, { machine: 'mips' })
  t.match(await mill.run([path]), { published: 1 })
  t.match(await mill.records(), [
    {
      kernel: { distro: 'custom', version: 'rolling', arch: 'mips', release: RELEASE },
      package: { authenticated: 'none' },
      btf: { byteOrder: 'big' },
    },
  ])
})

t.test('a shim without vmlinux', async (t) => {
  const mill = await makeMill(t)
  const shim = makePackage(mill.directory, undefined)
  const { failure } = await fails(t, mill, [shim], 'no_vmlinux', /usr\/lib\/debug\/boot\/vmlinux-/)
  t.equal(failure?.retryAt, null, 'the same package would fail again')
})

t.test('no DWARF', async (t) => {
  const mill = await makeMill(t)
  await fails(t, mill, [packageWith(mill, { debug: false })], 'no_dwarf', /no \.debug_info/)
})

t.test('no ELF', async (t) => {
  const mill = await makeMill(t)
  const path = join(mill.directory, 'vmlinux')
  writeFileSync(path, Buffer.alloc(5000, 'not an image'))
  await fails(t, mill, [makePackage(mill.directory, path)], 'invalid_elf', /vmlinux/)
})

t.test('an image of another kernel than the package says', async (t) => {
  const mill = await makeMill(t)
  const path = join(mill.directory, 'vmlinux')
  makeVmlinux(path, { release: '6.1.0-8-test' })
  const file = makePackage(mill.directory, path)
  await fails(t, mill, [file], 'kernel_mismatch', /6\.1\.0-8-test, not 6\.1\.0-9-test/)
})

t.test("BTF that is no kernel's: no tgid, a task_struct too small", async (t) => {
  for (const [defines, message] of [
    [{ TGID: 'other' }, /task_struct has no tgid/],
    [{ STACK: 1 }, /task_struct has \d+ bytes/],
    [{ task_struct: 'job' }, /no struct task_struct/],
  ] as const) {
    const mill = await makeMill(t)
    await fails(t, mill, [packageWith(mill, { defines })], 'invalid_btf', message)
  }
})

t.test('corrupt xz', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const { size } = statSync(file)
  writeSync(openSync(file, 'r+'), Buffer.alloc(64), 0, 64, size - 400)
  await fails(t, mill, [file], 'invalid_package', /does not decompress: .*corrupt/)
})

t.test('a package that ends early, as a file and as its server sends it', async (t) => {
  const mill = await makeMill(t)
  const whole = packageWith(mill)
  const { size } = statSync(whole)
  execFileSync('dd', ['if=/dev/null', `of=${whole}`, 'bs=1', `seek=${size - 300}`, 'status=none'])
  await fails(t, mill, [whole], 'truncated', /ends in the middle/)

  const served = await makeMill(t)
  const file = packageWith(served)
  const bytes = readFileSync(file)
  const repository = makeRepository(served.directory, { packages: [file], signer })
  const server = await startServer(t, (request, response) => {
    const path = join(served.directory, decodeURIComponent(request.url!))
    if (!path.endsWith('.deb')) return void response.end(readFileSync(path))
    response.writeHead(200, { 'content-length': bytes.length })
    response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy())
  })
  const mirror = { ...repository, url: `${server.url}/debian` }
  const record = await fails(t, served, mirror, 'truncated', /\.deb: /)
  t.ok(record.failure?.retryAt, 'the server may mend')
})

t.test('a package shorter than its index says', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const repository = makeRepository(mill.directory, { packages: [file], signer })
  const path = pooled(repository, file)
  writeFileSync(path, readFileSync(path).subarray(0, -100))
  await fails(t, mill, repository, 'truncated', /ends after \d+ of \d+ bytes/)
})

t.test('a wrong hash, however sound the package', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const repository = makeRepository(mill.directory, { packages: [file], signer })
  tamper(pooled(repository, file))
  await fails(t, mill, repository, 'digest_mismatch', /SHA-256 [0-9a-f]{64}, the index says/)

  const broken = await makeMill(t)
  const path = pooled(repository, file)
  writeFileSync(path, Buffer.alloc(statSync(path).size, 'no package'))
  await fails(t, broken, repository, 'digest_mismatch', /the index says/)
})

t.test('--early-stop reads no further than vmlinux needs, and says so', async (t) => {
  const mill = await makeMill(t)
  const [image, rest] = [join(mill.directory, 'vmlinux'), join(mill.directory, 'modules')]
  makeVmlinux(image)
  writeFileSync(rest, Buffer.alloc(16 * 1024 ** 2))
  const file = makePackage(mill.directory, undefined, {
    files: { [`usr/lib/debug/boot/vmlinux-${RELEASE}`]: image, 'usr/lib/modules': rest },
    compression: 'none',
  })
  const repository = makeRepository(mill.directory, { packages: [file], signer })
  writeSync(openSync(pooled(repository, file), 'r+'), 'tampered', statSync(file).size - 100)
  let read = 0
  const onEvent: OnEvent = (event) => {
    if (event.event === 'published') read = event.read
  }
  t.match(await mill.run(repository, { earlyStop: true, onEvent }), { published: 1 })
  t.ok(read > 0 && read < 4 * 1024 ** 2, `${read} bytes`)
  const [record] = await mill.records()
  t.equal(record?.package.authenticated, 'prefix')

  t.match(await mill.run(repository), { failed: { digest_mismatch: 1 } }, 'read whole, it is not')
  t.match(await mill.records(), [{ btf: record!.btf, failure: { code: 'digest_mismatch' } }])
})

t.test('a bad signature: no package of that suite is believed', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const repository = makeRepository(mill.directory, { packages: [file], signer: makeSigner(t) })
  const believed = { ...repository.source, keyrings: [signer.keyring] }
  const summary = await mill.run({ ...repository, source: believed })
  t.match(summary, { published: 0, failed: {}, sourcesFailed: 1 })
  t.same(await mill.records(), [])
  t.match(await mill.sourceFailures(), [
    {
      source: 'test',
      suite: 'bookworm-i686',
      failure: { code: 'invalid_signature', log: /NO_PUBKEY/ },
    },
  ])
  t.same(await mill.leftovers(), [])

  t.match(await mill.run(repository), { published: 1, sourcesFailed: 0 })
  t.same(await mill.sourceFailures(), [], 'mended, it is shown no more')
})

t.test('pahole crashes', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill, { more: nestedBlocks(1_000_000) })
  await fails(t, mill, [file], 'pahole_crashed', /SIGSEGV/)
})

t.test('pahole takes more memory than it may', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill, { more: manyStructs(100_000) })
  const pahole = { ...PAHOLE_LIMITS, memory: 16 * 1024 ** 2 }
  await fails(t, mill, [file], 'pahole_out_of_memory', /more than 16 MiB/, { pahole })
})

t.test('aborted, a run stores nothing and leaves nothing', async (t) => {
  const stages = ['unpack', 'pahole', 'check', 'publish']
  const reason = new Error('enough')
  for (const stage of stages) {
    const mill = await makeMill(t)
    const file = packageWith(mill)
    const controller = new AbortController()
    const onEvent: OnEvent = (event) => {
      if (event.event === 'stage' && event.stage === stage) controller.abort(reason)
    }
    await t.rejects(mill.run([file], { signal: controller.signal, onEvent }), reason, stage)
    t.same(await mill.records(), [])
    t.same(await mill.leftovers(), [])
  }
})

t.test('bad packages between good ones', async (t) => {
  const mill = await makeMill(t)
  const image = join(mill.directory, 'vmlinux')
  const releases = ['6.1.0-1-test', '6.1.0-2-test', '6.1.0-3-test', '6.1.0-4-test', '6.1.0-5-test']
  const packages = releases.map((release, i) => {
    makeVmlinux(image, { release, debug: i !== 1 })
    return makePackage(mill.directory, i === 3 ? undefined : image, { release })
  })
  const repository = makeRepository(mill.directory, { packages, signer })
  tamper(pooled(repository, packages[2]!))
  const told: string[] = []
  const summary = await mill.run(repository, {
    jobs: 2,
    onEvent: (event) => void told.push(event.event),
  })
  t.match(summary, { published: 2, sourcesFailed: 0 })
  t.same(Object.keys(summary.failed).sort(), ['digest_mismatch', 'no_dwarf', 'no_vmlinux'])
  t.same(
    (await mill.records()).map(({ failure }) => failure?.code ?? 'published'),
    ['published', 'no_dwarf', 'digest_mismatch', 'no_vmlinux', 'published'],
  )
  t.equal(told.filter((event) => event === 'failed').length, 3)
  t.match(await mill.run(repository), { published: 0, skipped: 2, postponed: 3 }, 'not due again')
})

t.test('a failed kernel is tried again when it is due, and attempts are counted', async (t) => {
  const mill = await makeMill(t)
  const file = packageWith(mill)
  const whole = readFileSync(file)
  writeFileSync(file, whole.subarray(0, -200))
  await mill.run([file])
  await mill.run([file])
  const [{ failure }] = (await mill.records()) as [BuildRecord]
  t.match(failure, { code: 'truncated', attempts: 2 })
  const pause = Date.parse(failure!.retryAt!) - Date.parse(failure!.at)
  t.equal(pause, 2 * 3600 * 1000, 'twice the first pause')

  writeFileSync(file, whole)
  await mill.run([file])
  t.match(await mill.records(), [{ failure: undefined, btf: {} }], 'one record: that it is mended')
})

/** Where a repository has a package. */
function pooled({ directory }: Repository, file: string): string {
  return join(directory, 'pool', file.slice(file.lastIndexOf('/') + 1))
}

/** Changes a package where nobody looks: a digit of its first member's owner. */
function tamper(path: string): void {
  const bytes = readFileSync(path)
  bytes[0x24]! ^= 1
  writeFileSync(path, bytes)
}

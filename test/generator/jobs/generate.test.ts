/*
 * Runs from packages to a store, and each way in which a package can fail, with real bad input. Each failure has its
 * code and is in the catalog, no file of it is left on disk, and the other packages of the run are not affected.
 */
import { execFileSync } from 'node:child_process'
import { openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { type GenerateOptions, generateFiles, type OnEvent } from '../../../generator/index.ts'
import { PAHOLE_LIMITS } from '../../../generator/jobs/pahole.ts'
import { type BuildRecord, type FailureCode, verifyStore } from '../../../storage/index.ts'
import { makeRepository, type Repository } from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
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

/** A package with a new vmlinux. */
function packageWith(env: RunDirectory, image: ImageOptions = {}): string {
  const path = join(env.directory, 'vmlinux')
  makeVmlinux(path, image)
  return makePackage(env.directory, path, image.release ? { release: image.release } : {})
}

/** Asserts that a run with one package fails with a code, which is recorded, and that it leaves no files. */
async function fails(
  t: Test,
  env: RunDirectory,
  from: Repository | readonly string[],
  code: FailureCode,
  message: RegExp,
  options: Partial<GenerateOptions> = {},
): Promise<BuildRecord> {
  const summary = await env.run(from, options)
  t.match(summary, { published: 0, failed: { [code]: 1 } })
  const records = await env.records()
  t.equal(records.length, 1)
  const [record] = records
  t.match(record, {
    kernel: { release: RELEASE, arch: 'i686' },
    failure: { code, message, attempts: 1 },
    btf: undefined,
  })
  t.same(await env.leftovers(), [])
  return record!
}

const signer = makeSigner(t)

t.test(
  'a package becomes a record and a blob, and the same package always gives the same BTF',
  async (t) => {
    const env = await makeRunDirectory(t)
    const file = packageWith(env)
    const repository = makeRepository(env.directory, { packages: [file], signer })
    const summary = {
      ...{ skipped: 0, postponed: 0, failed: {}, sourcesFailed: 0, left: 0, queued: 0, read: 0 },
    }
    const read = statSync(file).size
    t.same(await env.run(repository), { published: 1, ...summary, read })
    const [record] = await env.records()
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
    t.same(await env.leftovers(), [`store/blobs/${sha256.slice(0, 2)}/${sha256}.btf.zst`])
    t.same(
      await env.run(repository),
      { published: 0, ...summary, skipped: 1 },
      'the store has it now',
    )

    const again = await makeRunDirectory(t)
    await again.run(repository)
    t.equal((await again.records())[0]?.btf?.sha256, sha256, 'the same BTF in another store')
  },
)

t.test(
  'a big-endian vmlinux without a package is published under the release in its banner',
  async (t) => {
    const env = await makeRunDirectory(t)
    const path = join(env.directory, 'vmlinux')
    makeVmlinux(path, { machine: 'mips' })
    t.match(await env.run([path]), { published: 1 })
    t.match(await env.records(), [
      {
        kernel: { distro: 'custom', version: 'rolling', arch: 'mips', release: RELEASE },
        package: { authenticated: 'none' },
        btf: { byteOrder: 'big' },
      },
    ])
  },
)

t.test(
  'a package without vmlinux fails with no_vmlinux, which names the paths, and is never retried',
  async (t) => {
    const env = await makeRunDirectory(t)
    const shim = makePackage(env.directory, undefined)
    const { failure } = await fails(t, env, [shim], 'no_vmlinux', /usr\/lib\/debug\/boot\/vmlinux-/)
    t.equal(failure?.retryAt, null, 'the same package would fail again')
  },
)

t.test('a vmlinux without DWARF fails with no_dwarf', async (t) => {
  const env = await makeRunDirectory(t)
  await fails(t, env, [packageWith(env, { debug: false })], 'no_dwarf', /no \.debug_info/)
})

t.test('a vmlinux that is not an ELF file fails with invalid_elf', async (t) => {
  const env = await makeRunDirectory(t)
  const path = join(env.directory, 'vmlinux')
  writeFileSync(path, Buffer.alloc(5000, 'not an image'))
  await fails(t, env, [makePackage(env.directory, path)], 'invalid_elf', /vmlinux/)
})

t.test(
  'a vmlinux of another kernel than the index or the user names fails with kernel_mismatch',
  async (t) => {
    const env = await makeRunDirectory(t)
    const path = join(env.directory, 'vmlinux')
    makeVmlinux(path, { release: '6.1.0-8-test' })
    const file = makePackage(env.directory, path)
    const repository = makeRepository(env.directory, { packages: [file], signer })
    const message = /6\.1\.0-8-test, not 6\.1\.0-9-test/
    await fails(t, env, repository, 'kernel_mismatch', message)

    const named = await makeRunDirectory(t)
    const { store, scratch } = named
    const given = { release: '6.1.0-9-test', arch: 'x86' }
    const summary = await generateFiles([file], given, { store, scratch })
    t.match(summary, { published: 0, failed: { kernel_mismatch: 1 } })
  },
)

t.test(
  'the release and the architecture in the image of a file win over those of its name',
  async (t) => {
    const env = await makeRunDirectory(t)
    const { directory, store, scratch } = env
    const path = join(directory, 'vmlinux')
    const azure = '5.15.118.1-1.cm2'
    makeVmlinux(path, { release: azure, machine: 'x86_64' })
    const at = `usr/lib/debug/lib/modules/${azure}/vmlinux`
    const rpm = makeRpm(directory, {
      version: '5.15.118.1',
      release: '1.cm2',
      files: { [at]: path },
    })
    const wsl = '5.15.90.1-microsoft-standard-WSL2'
    makeVmlinux(path, { release: wsl, machine: 'x86_64' })
    const deb = makePackage(directory, path, {
      name: `linux-image-${wsl.toLowerCase()}-dbg`,
      files: { [`usr/lib/debug/boot/vmlinux-${wsl}`]: path },
    })
    makeVmlinux(path, { release: '6.1.0-1-arm64', machine: 'aarch64' })
    await env.run([rpm, deb])
    await generateFiles([path], { arch: 'arm64' }, { store, scratch })
    const made = (await env.records()).map(({ kernel, failure }) => [
      kernel.arch,
      kernel.release,
      failure?.message,
    ])
    t.same(made, [
      ['aarch64', '6.1.0-1-arm64', undefined],
      ['x86_64', azure, undefined],
      ['x86_64', wsl, undefined],
    ])
  },
)

t.test('BTF without a plausible task_struct fails with invalid_btf', async (t) => {
  for (const [defines, message] of [
    [{ TGID: 'other' }, /task_struct has no tgid/],
    [{ STACK: 1 }, /task_struct has \d+ bytes/],
    [{ task_struct: 'job' }, /no struct task_struct/],
  ] as const) {
    const env = await makeRunDirectory(t)
    await fails(t, env, [packageWith(env, { defines })], 'invalid_btf', message)
  }
})

t.test('a package with corrupt xz data fails with invalid_package', async (t) => {
  const env = await makeRunDirectory(t)
  const file = packageWith(env)
  const { size } = statSync(file)
  writeSync(openSync(file, 'r+'), Buffer.alloc(64), 0, 64, size - 400)
  await fails(t, env, [file], 'invalid_package', /does not decompress: .*corrupt/)
})

t.test('a file or a download that ends early fails with truncated', async (t) => {
  const env = await makeRunDirectory(t)
  const whole = packageWith(env)
  const { size } = statSync(whole)
  execFileSync('dd', ['if=/dev/null', `of=${whole}`, 'bs=1', `seek=${size - 300}`, 'status=none'])
  await fails(t, env, [whole], 'truncated', /ends in the middle/)

  const served = await makeRunDirectory(t)
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
  t.ok(record.failure?.retryAt, 'it is retried: the server may recover')
})

t.test('a package shorter than the index says fails with truncated', async (t) => {
  const env = await makeRunDirectory(t)
  const file = packageWith(env)
  const repository = makeRepository(env.directory, { packages: [file], signer })
  const path = pooled(repository, file)
  writeFileSync(path, readFileSync(path).subarray(0, -100))
  await fails(t, env, repository, 'truncated', /ends after \d+ of \d+ bytes/)
})

t.test(
  'a package with a wrong digest fails with digest_mismatch, whether it unpacks or not',
  async (t) => {
    const env = await makeRunDirectory(t)
    const file = packageWith(env)
    const repository = makeRepository(env.directory, { packages: [file], signer })
    tamper(pooled(repository, file))
    await fails(t, env, repository, 'digest_mismatch', /SHA-256 [0-9a-f]{64}, the index says/)

    const broken = await makeRunDirectory(t)
    const path = pooled(repository, file)
    writeFileSync(path, Buffer.alloc(statSync(path).size, 'no package'))
    await fails(t, broken, repository, 'digest_mismatch', /the index says/)
  },
)

t.test(
  'with earlyStop no more is read than vmlinux needs, and the record says prefix',
  async (t) => {
    const env = await makeRunDirectory(t)
    const [image, rest] = [join(env.directory, 'vmlinux'), join(env.directory, 'modules')]
    makeVmlinux(image)
    writeFileSync(rest, Buffer.alloc(16 * 1024 ** 2))
    const file = makePackage(env.directory, undefined, {
      files: { [`usr/lib/debug/boot/vmlinux-${RELEASE}`]: image, 'usr/lib/modules': rest },
      compression: 'none',
    })
    const repository = makeRepository(env.directory, { packages: [file], signer })
    writeSync(openSync(pooled(repository, file), 'r+'), 'tampered', statSync(file).size - 100)
    let read = 0
    const onEvent: OnEvent = (event) => {
      if (event.event === 'published') read = event.read
    }
    t.match(await env.run(repository, { earlyStop: true, onEvent }), { published: 1 })
    t.ok(read > 0 && read < 4 * 1024 ** 2, `${read} bytes`)
    const [record] = await env.records()
    t.equal(record?.package.authenticated, 'prefix')

    t.match(
      await env.run(repository),
      { failed: { digest_mismatch: 1 } },
      'the digest of the whole package is wrong',
    )
    t.match(await env.records(), [{ btf: record!.btf, failure: { code: 'digest_mismatch' } }])
  },
)

t.test(
  'no package of a suite with an invalid signature is used, and the failure is kept until the suite is valid',
  async (t) => {
    const env = await makeRunDirectory(t)
    const file = packageWith(env)
    const repository = makeRepository(env.directory, { packages: [file], signer: makeSigner(t) })
    const believed = { ...repository.source, keyrings: [signer.keyring] }
    const summary = await env.run({ ...repository, source: believed })
    t.match(summary, { published: 0, failed: {}, sourcesFailed: 1 })
    t.same(await env.records(), [])
    t.match(await env.sourceFailures(), [
      {
        source: 'test',
        suite: 'bookworm-i686',
        failure: { code: 'invalid_signature', log: /NO_PUBKEY/ },
      },
    ])
    t.same(await env.leftovers(), [])

    t.match(await env.run(repository), { published: 1, sourcesFailed: 0 })
    t.same(await env.sourceFailures(), [], 'the failure is removed')
  },
)

t.test('a crash of pahole fails with pahole_crashed', async (t) => {
  const env = await makeRunDirectory(t)
  const file = packageWith(env, { more: nestedBlocks(1_000_000) })
  await fails(t, env, [file], 'pahole_crashed', /SIGSEGV/)
})

t.test('a pahole that exceeds its memory limit fails with pahole_out_of_memory', async (t) => {
  const env = await makeRunDirectory(t)
  const file = packageWith(env, { more: manyStructs(100_000) })
  const pahole = { ...PAHOLE_LIMITS, memory: 16 * 1024 ** 2 }
  await fails(t, env, [file], 'pahole_out_of_memory', /more than 16 MiB/, { pahole })
})

t.test('a run that is aborted at any stage stores nothing and leaves no files', async (t) => {
  const stages = ['unpack', 'pahole', 'check', 'publish']
  const reason = new Error('enough')
  for (const stage of stages) {
    const env = await makeRunDirectory(t)
    const file = packageWith(env)
    const controller = new AbortController()
    const onEvent: OnEvent = (event) => {
      if (event.event === 'stage' && event.stage === stage) controller.abort(reason)
    }
    await t.rejects(env.run([file], { signal: controller.signal, onEvent }), reason, stage)
    t.same(await env.records(), [])
    t.same(await env.leftovers(), [])
  }
})

t.test('bad packages do not affect the good ones between them', async (t) => {
  const env = await makeRunDirectory(t)
  const image = join(env.directory, 'vmlinux')
  const releases = ['6.1.0-1-test', '6.1.0-2-test', '6.1.0-3-test', '6.1.0-4-test', '6.1.0-5-test']
  const packages = releases.map((release, i) => {
    makeVmlinux(image, { release, debug: i !== 1 })
    return makePackage(env.directory, i === 3 ? undefined : image, { release })
  })
  const repository = makeRepository(env.directory, { packages, signer })
  tamper(pooled(repository, packages[2]!))
  const told: string[] = []
  const summary = await env.run(repository, {
    jobs: 2,
    onEvent: (event) => void told.push(event.event),
  })
  t.match(summary, { published: 2, sourcesFailed: 0 })
  t.same(Object.keys(summary.failed).sort(), ['digest_mismatch', 'no_dwarf', 'no_vmlinux'])
  t.same(
    (await env.records()).map(({ failure }) => failure?.code ?? 'published'),
    ['published', 'no_dwarf', 'digest_mismatch', 'no_vmlinux', 'published'],
  )
  t.equal(told.filter((event) => event === 'failed').length, 3)
  t.match(await env.run(repository), { published: 0, skipped: 2, postponed: 3 }, 'no retry is due')
})

t.test(
  'attempts of a failed package are counted, the delay doubles, and success removes the failure',
  async (t) => {
    const env = await makeRunDirectory(t)
    const file = packageWith(env)
    const whole = readFileSync(file)
    writeFileSync(file, whole.subarray(0, -200))
    await env.run([file])
    await env.run([file])
    const [{ failure }] = (await env.records()) as [BuildRecord]
    t.match(failure, { code: 'truncated', attempts: 2 })
    const delay = Date.parse(failure!.retryAt!) - Date.parse(failure!.at)
    t.equal(delay, 2 * 3600 * 1000, 'twice the first delay')

    writeFileSync(file, whole)
    await env.run([file])
    t.match(await env.records(), [{ failure: undefined, btf: {} }], 'one record, without a failure')
  },
)

t.test('a run makes damaged BTF again that verifyStore has set aside', async (t) => {
  const env = await makeRunDirectory(t)
  const repository = makeRepository(env.directory, { packages: [packageWith(env)], signer })
  await env.run(repository)
  const [before] = (await env.records()) as [BuildRecord]
  const blobs = await Array.fromAsync(env.store.list('blobs/'))
  await env.store.put(blobs[0]!.key, Buffer.from('damaged'))
  await Array.fromAsync(verifyStore(env.store, { repair: true }))
  t.match(await env.run(repository), { published: 1, skipped: 0 })
  t.match(await env.run(repository), { published: 0, skipped: 1 })
  t.match(await env.records(), [{ btf: before.btf, failure: undefined }])
  await env.verify()
})

t.test('a record of a newer btfmill is replaced neither by BTF nor by a failure', async (t) => {
  const env = await makeRunDirectory(t)
  const file = packageWith(env)
  await env.run([file])
  const [{ key } = { key: '' }] = await Array.fromAsync(env.store.list('kernels/'))
  const newer = '{"schema": 9}'
  await env.store.put(key, Buffer.from(newer))
  t.match(await env.run([file]), { published: 0, failed: { store_failed: 1 } })
  t.equal(await text((await env.store.get(key)).body), newer)
})

/** The path of a package in a repository. */
function pooled({ directory }: Repository, file: string): string {
  return join(directory, 'pool', file.slice(file.lastIndexOf('/') + 1))
}

/** Changes a byte that no reader uses: a digit of the first member's owner. */
function tamper(path: string): void {
  const bytes = readFileSync(path)
  bytes[0x24]! ^= 1
  writeFileSync(path, bytes)
}

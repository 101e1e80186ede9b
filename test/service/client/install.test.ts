// btfmill fetch --install, --uninstall, --dialect and --root, against a service.
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { isWrapped, parseBtf, readBtf, toDialect } from '../../../bpf/index.ts'
import { fetchBtf, installBtf, uninstallBtf } from '../../../service/client/client.ts'
import { LOADERS } from '../../../service/client/place.ts'
import { run } from '../../helpers/command.ts'
import { littleKernels } from '../../helpers/core.ts'
import { btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'

const raw = readFileSync(littleKernels().get('x86_64')!)
const { kernel } = recordOf({ release: '6.1.0-9-amd64' })
const PATHS = {
  libbpf: 'lib/modules/6.1.0-9-amd64/vmlinux-6.1.0-9-amd64',
  cilium: 'lib/modules/6.1.0-9-amd64/vmlinux-6.1.0-9-amd64',
  tetragon: 'var/lib/tetragon/metadata/vmlinux-6.1.0-9-amd64',
  ptcpdump: 'var/lib/ptcpdump/btf/vmlinux-6.1.0-9-amd64',
  kyanos: 'var/lib/kyanos/btf/vmlinux-6.1.0-9-amd64',
}
const named = ['--distro', kernel.distro, '--distro-version', kernel.version]
named.push('--arch', kernel.arch, '--release', kernel.release)

async function machine(t: Test) {
  const { url } = await startTestService(t, async (store) => [
    recordOf(kernel, { btf: await btfOf(store, raw) }),
  ])
  const root = t.testdir({})
  process.env.XDG_CACHE_HOME = join(root, 'cache')
  t.teardown(() => {
    delete process.env.XDG_CACHE_HOME
  })
  const fetch = (...args: string[]) => run('fetch', '--root', root, ...named, ...args)
  return {
    url,
    root,
    fetch: (...args: string[]) => fetch('--server', url, ...args),
    offline: fetch,
  }
}

t.test('BTF is put where each loader looks, and removed again', async (t) => {
  const root = t.testdir({})
  t.same(LOADERS, Object.keys(PATHS))
  for (const loader of LOADERS) {
    const path = join(root, PATHS[loader])
    const options = { loader, release: kernel.release, root }
    t.same(await installBtf(raw, options), { path, before: [] })
    const file = readFileSync(path)
    t.ok(isWrapped(file))
    t.equal(readBtf(file).typeCount, parseBtf(raw).typeCount)
    t.equal(statSync(path).mode & 0o777, 0o644)
    t.same(readdirSync(dirname(path)), [`vmlinux-${kernel.release}`], 'no temporary file stays')
    t.equal((await installBtf(raw, options)).path, path, 'our own file is replaced')
    t.equal(await uninstallBtf(options), path)
    t.notOk(existsSync(dirname(path)), 'the empty directory goes too')
    t.equal(await uninstallBtf(options), undefined)
  }
})

t.test('fetch --install prints the path, and --uninstall removes the file', async (t) => {
  const { root, fetch, offline } = await machine(t)
  const path = join(root, PATHS.libbpf)
  const { status, stdout, stderr } = await fetch('--install', 'libbpf')
  t.match({ status, stdout }, { status: 0, stdout: `${path}\n` }, stderr)
  t.ok(isWrapped(readFileSync(path)))
  t.match(await offline('--uninstall', 'libbpf'), {
    status: 0,
    stderr: `btfmill: removed ${path}\n`,
  })
  t.match(await fetch('--install', 'bcc'), {
    status: 2,
    stderr: /expected one of libbpf, cilium, /,
  })
})

t.test(
  'a file of others is neither replaced nor removed, and one that is read before is named',
  async (t) => {
    const { root } = await machine(t)
    const options = { loader: 'libbpf', release: kernel.release, root } as const
    const path = join(root, PATHS.libbpf)
    mkdirSync(dirname(path), { recursive: true })
    for (const plant of [
      () => writeFileSync(path, raw),
      () => symlinkSync('/etc/passwd', path),
      () => mkdirSync(path),
    ]) {
      plant()
      await t.rejects(installBtf(raw, options), { code: 'foreign_file' })
      await t.rejects(uninstallBtf(options), { code: 'foreign_file' })
      rmSync(path, { recursive: true })
    }
    mkdirSync(join(root, 'boot'))
    writeFileSync(join(root, 'boot', `vmlinux-${kernel.release}`), '')
    t.same(await installBtf(raw, options), {
      path,
      before: [join(root, 'boot', `vmlinux-${kernel.release}`)],
    })
    for (const release of ['../x', 'a/b', '.', ''])
      await t.rejects(installBtf(raw, { ...options, release }), { code: 'invalid_options' })
    await t.rejects(installBtf(Buffer.from('no BTF'), options), { name: 'BtfError' })
    await t.rejects(installBtf(raw, { ...options, root: '/dev/null' }), { code: 'not_writable' })
  },
)

t.test('on a kernel with BTF of its own, --install writes nothing', async (t) => {
  const { root } = await machine(t)
  mkdirSync(join(root, 'sys/kernel/btf'), { recursive: true })
  writeFileSync(join(root, 'sys/kernel/btf/vmlinux'), raw)
  const { status, stderr } = await run('fetch', '--root', root, '--install', 'libbpf')
  t.match({ status, stderr }, { status: 0, stderr: /reads the kernel's own BTF first/ })
  t.notOk(existsSync(join(root, 'lib')))
})

t.test("fetch --dialect converts a server's BTF, the cache's, and the kernel's own", async (t) => {
  const { url, root, fetch } = await machine(t)
  const converted = Buffer.from(toDialect(parseBtf(raw), 'cilium-0.9.1'))
  t.notOk(converted.equals(raw))
  t.notOk(parseBtf(converted).kinds().includes('ENUM64'))
  const digest = createHash('sha256').update(converted).digest('hex')
  const { status, stdout, stderr } = await fetch('--dialect', 'cilium-0.9.1')
  t.equal(status, 0, stderr)
  t.ok(readFileSync(stdout.trim()).equals(converted))
  t.match(stderr, digest)
  t.match(await fetch('--dialect', 'x'), { status: 2, stderr: /expected one of libbpf-0\.3/ })
  const here = { kernel, cache: join(root, 'here') }
  for (const server of [{ server: url }, {}]) {
    const found = await fetchBtf({ ...here, ...server, dialect: 'cilium-0.9.1' })
    t.match(found, { sha256: digest, origin: 'server' in server ? 'server' : 'cache' })
    t.ok(readFileSync(found.path).equals(converted))
  }
  t.ok(readFileSync((await fetchBtf(here)).path).equals(raw), 'the cache has the BTF as it is')
  const output = join(root, 'out.btf')
  t.equal((await fetchBtf({ ...here, output, dialect: 'cilium-0.9.1' })).path, output)
  t.ok(readFileSync(output).equals(converted))

  const own = join(root, 'sys/kernel/btf/vmlinux')
  mkdirSync(dirname(own), { recursive: true })
  writeFileSync(own, raw)
  chmodSync(own, 0o444)
  const cache = join(root, 'own-cache')
  const mine = await fetchBtf({ root, cache, dialect: 'cilium-0.9.1' })
  t.match(mine, { origin: 'kernel', sha256: digest })
  t.ok(readFileSync(mine.path).equals(converted))
  t.equal((await fetchBtf({ root, cache })).path, own)
  chmodSync(own, 0o644)
  writeFileSync(own, 'no BTF')
  await t.rejects(fetchBtf({ root, cache, server: url, dialect: 'libbpf-0.5' }), {
    code: 'unsupported_btf',
  })
  const wrong = { root, dialect: 'libbpf-9' } as unknown as { root: string }
  await t.rejects(fetchBtf(wrong), { code: 'invalid_options', message: /^invalid dialect / })
})

// Builds and runs the images without an engine or a registry: base images with debootstrap, both targets with buildah, and
// a read-only, unprivileged container of each. One generates BTF from a small package, the other serves it.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { withScratch } from '../../generator/scratch.ts'
import { makePackage } from '../helpers/package.ts'
import { makeVmlinux, RELEASE } from '../helpers/vmlinux.ts'
import { Builder, dataFor, type Image, processIn } from './container.ts'

const CHECKOUT = join(import.meta.dirname, '../..')
const BASES = {
  NODE_IMAGE: 'localhost/btfmill-node',
  DEBIAN_IMAGE: 'localhost/btfmill-debian',
}
const KERNEL = { distro: 'debian', version: '12', arch: 'i686', release: RELEASE }
const run = promisify(execFile)

const root = process.getuid?.() === 0 ? {} : { skip: 'building images needs root' }

t.test('the images build, run read-only and unprivileged, generate BTF and serve it', root, (t) =>
  withScratch(undefined, async (dir) => {
    const builder = new Builder(dir)
    // keep tap's hooks out of npm's Node
    const env = ['--unset=NODE_OPTIONS', `BUILDAH=${builder.words}`]
    const bases = await run('env', [...env, 'sh', join(CHECKOUT, 'docker/bases.sh')], {
      timeout: 1_200_000,
    })
    t.same(bases.stdout.trim().split('\n').sort(), Object.values(BASES).sort())

    const build = (target: string, trusting: string[]) =>
      builder.run(
        ...['build', '--isolation', 'chroot', '--format', 'docker', '--layers=false'],
        ...['--file', join(CHECKOUT, 'docker/Dockerfile'), '--target', target],
        ...Object.entries(BASES).flatMap(([name, image]) => ['--build-arg', `${name}=${image}`]),
        ...trusting,
        ...['--tag', `localhost/btfmill-${target}`, CHECKOUT],
      )
    const trusting = await ownCertificates(dir)
    await build('generator', trusting)
    await build('service', trusting)
    const [generator, service] = await Promise.all(
      ['generator', 'service'].map((target) => builder.open(`localhost/btfmill-${target}`)),
    )
    for (const [name, image] of Object.entries({ generator: generator!, service: service! })) {
      const { stdout } = await run('du', ['--summarize', '--block-size=1M', image.root])
      t.comment(`${name}: ${Number.parseInt(stdout, 10)} MB unpacked`)
      await hardened(t, image, dir)
    }
    const pahole = async (image: Image) =>
      await image.runProgram(await dataFor(image, dir), ['pahole', '--version'])
    t.match(await pahole(generator!), /^v1\.(2[89]|[3-9]\d)/)
    await t.rejects(pahole(service!), 'the service image has no pahole')
    await path(t, generator!, service!, dir)
  }),
)

/** Gives the build the private certificate authority that this machine uses for npm's registry, if any. */
async function ownCertificates(dir: string): Promise<string[]> {
  const own = process.env.NODE_EXTRA_CA_CERTS
  if (!own) return []
  await mkdir(join(dir, 'ca'))
  await copyFile(own, join(dir, 'ca/ca.crt'))
  const place = '/run/ca' // outside of ca-certificates' directories
  const known = `NODE_EXTRA_CA_CERTS=${place}/ca.crt`
  return ['--build-arg', known, '--volume', `${join(dir, 'ca')}:${place}:ro`]
}

/** Asserts the user, the volume, the health check and the read-only root of an image. */
async function hardened(t: Test, image: Image, dir: string): Promise<void> {
  const { User, Volumes, Healthcheck } = image.config
  t.equal(User, '10001:10001')
  t.same(Object.keys(Volumes ?? {}), ['/data'])
  t.ok(Healthcheck?.Test.length)
  const data = await dataFor(image, dir)
  const shell = (script: string) => image.runProgram(data, ['sh', '-c', script])
  t.equal((await shell('id -u; id -g')).trim(), '10001\n10001')
  t.match(await shell('node --version'), /^v24\./)
  t.match(await shell('touch /opt/btfmill/x 2>&1 || true'), /Read-only file system/)
  await shell('touch /data/x /tmp/x')
  t.equal(
    await shell('ls /opt/btfmill/node_modules | grep -xE "typescript|tap|node-linux-.*" || true'),
    '',
  )
  t.equal(await shell('command -v npm gcc || true'), '')
}

/** Goes the path from a package to a fetched file. */
async function path(t: Test, generator: Image, service: Image, dir: string): Promise<void> {
  const data = await dataFor(generator, dir)
  const vmlinux = join(dir, 'vmlinux')
  makeVmlinux(vmlinux)
  await copyFile(makePackage(dir, vmlinux), join(data, 'linux.deb'))
  const named = Object.entries(KERNEL).flatMap(([key, value]) => [
    `--${key === 'version' ? 'distro-version' : key}`,
    value,
  ])
  await generator.run(data, ['generate', ...named, 'linux.deb'])
  t.match(await generator.run(data, ['list', '--json']), new RegExp(RELEASE))

  const child = service.start(data)
  const closed = once(child, 'close')
  try {
    for await (const line of createInterface({ input: child.stdout! }))
      if (/the catalog is loaded/.test(line)) break
    const pid = String(await processIn(child))
    const enter = (...args: string[]) =>
      run('nsenter', ['--target', pid, '--net', ...args], { timeout: 60_000 })
    const { stdout: status } = await run('cat', [`/proc/${pid}/status`])
    t.match(status, /^Uid:\t10001\t10001\t10001\t10001$/m)

    // runs the health check in the container, as an engine does
    const [kind, ...health] = service.config.Healthcheck!.Test
    t.equal(kind, 'CMD')
    const [user, group] = service.config.User.split(':') as [string, string]
    const whole = ['--mount', '--pid', '--root', '--wd', '--setuid', user, '--setgid', group]
    const env = ['env', '--ignore-environment', ...service.config.Env]
    const isWell = () => enter(...whole, ...env, ...health)
    await isWell()

    const btfmill = [process.execPath, join(CHECKOUT, 'service/cli/main.ts')]
    const fetched = join(dir, 'fetched.btf')
    await enter(...btfmill, 'fetch', '--server', 'http://127.0.0.1:8080', ...named, '-o', fetched)
    const { stdout: dump } = await run('bpftool', ['btf', 'dump', 'file', fetched, 'format', 'c'])
    t.match(dump, /struct task_struct \{/)

    process.kill(Number(pid), 'SIGSTOP')
    const wait = await isWell().catch(({ code }) => code)
    t.equal(wait, 1, 'the health check fails if the service does not answer')
    process.kill(Number(pid), 'SIGCONT')
    process.kill(Number(pid), 'SIGTERM')
    t.equal((await closed)[0], 0, 'the service stops on SIGTERM')
  } finally {
    child.kill('SIGKILL')
  }
}

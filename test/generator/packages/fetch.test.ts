import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Job } from '../../../generator/jobs/job.ts'
import { fetchVmlinux } from '../../../generator/packages/fetch.ts'
import { debOf } from '../../helpers/package.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const PATH = 'usr/lib/debug/boot/vmlinux-6.1.0-9-test'
const IMAGE = randomBytes(500_000)
/** vmlinux, followed by eight times as many bytes */
const PACKAGE = await debOf([
  [PATH, IMAGE],
  ['modules', randomBytes(4_000_000)],
])
const SHA256 = createHash('sha256').update(PACKAGE).digest('hex')

function jobOf(url: string, { size, sha256 }: { size?: number; sha256?: string } = {}): Job {
  return {
    kernel: { distro: 'debian', version: '12' },
    package: { name: 'linux-image-dbg', version: '1', url, ...(size !== undefined && { size }) },
    ...(sha256 && { checksum: { algorithm: 'sha256', hex: sha256 } }),
    trust: 'index',
    format: 'deb',
    vmlinux: [PATH],
  }
}

/** Starts a fetch to a file that is removed after the test. */
async function fetch(t: Test, job: Job, earlyStop = false) {
  const directory = mkdtempSync(join(tmpdir(), 'fetch-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const target = join(directory, 'vmlinux')
  const progress: number[] = []
  const onProgress = (read: number) => void progress.push(read)
  const options = { earlyStop, onProgress, retry: IMPATIENT }
  return { ...(await fetchVmlinux(job, { vmlinux: target }, options)), target, progress }
}

t.test('vmlinux is written while the rest of the package is still arriving', async (t) => {
  let send = () => {}
  const { url } = await startServer(t, (_, response) => {
    response.writeHead(200, { 'content-length': PACKAGE.length })
    response.write(PACKAGE.subarray(0, PACKAGE.length / 2))
    send = () => void response.end(PACKAGE.subarray(PACKAGE.length / 2))
  })
  const fetched = await fetch(t, jobOf(url, { size: PACKAGE.length, sha256: SHA256 }))
  await fetched.vmlinux
  t.ok(readFileSync(fetched.target).equals(IMAGE))
  send()
  const whole = {
    read: PACKAGE.length,
    sha256: SHA256,
    authenticated: 'whole',
    signed: false,
  }
  t.same(await fetched.done, whole)
  t.equal(fetched.progress.at(-1), PACKAGE.length)
  t.same(
    fetched.progress,
    fetched.progress.toSorted((a, b) => a - b),
  )
})

t.test('early stop ends the download when vmlinux is written', async (t) => {
  let closed: Promise<unknown> | undefined
  const { url } = await startServer(t, (request, response) => {
    closed = new Promise((resolve) => request.socket.once('close', resolve))
    response.writeHead(200, { 'content-length': 1e12 })
    response.write(PACKAGE.subarray(0, -2000))
    const pour = () => {
      while (response.write(PACKAGE));
    }
    response.on('drain', pour)
    pour()
  })
  const fetched = await fetch(t, jobOf(url, { size: 1e12, sha256: SHA256 }), true)
  await fetched.vmlinux
  t.match(await fetched.done, { authenticated: 'prefix', sha256: undefined })
  await closed
  t.ok(readFileSync(fetched.target).equals(IMAGE))
})

t.test('a package that cannot be unpacked is still hashed to its end', async (t) => {
  const shim = await debOf([['modules', randomBytes(1_000_000)]])
  const sha256 = createHash('sha256').update(shim).digest('hex')
  const { url } = await startServer(t, (_, response) => void response.end(shim))
  const fetched = await fetch(t, jobOf(url, { size: shim.length, sha256 }))
  await t.rejects(fetched.vmlinux, { code: 'no_vmlinux' })
  t.match(await fetched.done, { authenticated: 'whole', sha256 })
})

t.test('no more bytes are read than the index says', async (t) => {
  const { url } = await startServer(t, (_, response) => {
    const pour = () => {
      while (response.write(PACKAGE));
    }
    response.on('drain', pour)
    pour()
  })
  const fetched = await fetch(t, jobOf(url, { size: PACKAGE.length, sha256: SHA256 }))
  const message = `more than ${PACKAGE.length} bytes`
  await t.rejects(fetched.done, { code: 'digest_mismatch', message })
})

t.test('a package with another digest or size than the index says is rejected', async (t) => {
  const { url } = await startServer(t, (_, response) => void response.end(PACKAGE))
  const done = async (expected: object) => (await fetch(t, jobOf(url, expected))).done
  const size = PACKAGE.length
  await t.rejects(done({ size, sha256: 'a'.repeat(64) }), { code: 'digest_mismatch' })
  await t.rejects(done({ size: size + 1, sha256: SHA256 }), { code: 'truncated' })
  t.match(await done({}), { sha256: SHA256, authenticated: 'whole' })

  const digest = createHash('sha1').update(PACKAGE).digest('hex')
  const old = (hex: string): Job => ({ ...jobOf(url), checksum: { algorithm: 'sha1', hex } })
  t.match(await (await fetch(t, old(digest))).done, { sha256: SHA256, authenticated: 'whole' })
  const other = (await fetch(t, old('a'.repeat(40)))).done
  await t.rejects(other, { code: 'digest_mismatch', message: /SHA-1 [0-9a-f]{40}, the index says/ })
})

t.test('a bare vmlinux is fetched', async (t) => {
  const { url } = await startServer(t, (_, response) => void response.end(IMAGE))
  const fetched = await fetch(t, { ...jobOf(url), format: 'vmlinux' })
  await fetched.vmlinux
  t.match(await fetched.done, { read: IMAGE.length })
  t.ok(readFileSync(fetched.target).equals(IMAGE))
})

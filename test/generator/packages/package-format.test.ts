/* From an rpm, or a bare vmlinux, to a record. A failed run leaves nothing but the failure. */
import { execFileSync } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FailureCode } from '../../../storage/index.ts'
import { cpioEntry, cpioOf } from '../../helpers/package.ts'
import { makeRpm, type RpmOptions, rpmOf } from '../../helpers/rpm.ts'
import { makeRunDirectory, type RunDirectory } from '../../helpers/run-directory.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

const RELEASE = '5.14.0-1.el9.i686'
const PATH = `usr/lib/debug/lib/modules/${RELEASE}/vmlinux`

/** Makes an image, and a package that contains it. */
function packaged(
  runDirectory: RunDirectory,
  options: Partial<RpmOptions> = {},
): { image: string; file: string } {
  const image = join(runDirectory.directory, 'vmlinux')
  makeVmlinux(image, { release: RELEASE })
  return {
    image,
    file: makeRpm(runDirectory.directory, { arch: 'i686', files: { [PATH]: image }, ...options }),
  }
}

/** Generates from a file and asserts that this fails with a code and message, and leaves no files. */
async function fails(
  t: Test,
  runDirectory: RunDirectory,
  file: string,
  code: FailureCode,
  message: RegExp,
) {
  t.match(await runDirectory.run([file]), { published: 0, failed: { [code]: 1 } }, code)
  t.match(await runDirectory.records(), [{ failure: { code, message }, btf: undefined }])
  t.same(await runDirectory.leftovers(), [])
}

t.test('an rpm gives the same BTF and kernel as its bare vmlinux', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const { image, file } = packaged(runDirectory)
  t.match(await runDirectory.run([image]), { published: 1 })
  const [bare] = await runDirectory.records()
  t.match(await runDirectory.run([file]), { published: 1 })
  const found = (await runDirectory.records()).find(
    ({ package: { name } }) => name === 'kernel-debuginfo',
  )
  t.match(found, {
    kernel: bare?.kernel,
    package: { version: '5.14.0-1.el9', authenticated: 'none' },
    btf: bare?.btf,
  })
})

t.test('a bare vmlinux is read in every compression', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const { image } = packaged(runDirectory)
  await runDirectory.run([image])
  for (const [program, extension] of Object.entries({
    gzip: 'gz',
    xz: 'xz',
    bzip2: 'bz2',
    zstd: 'zst',
    lz4: 'lz4',
  })) {
    const bytes = execFileSync(program, ['--stdout', image], { maxBuffer: 1e8 })
    const file = `${image}.${extension}`
    writeFileSync(file, bytes)
    t.match(await runDirectory.run([file]), { published: 1 }, extension)
    writeFileSync(file, bytes.subarray(0, -20))
    t.match(
      await runDirectory.run([file]),
      { failed: { invalid_package: 1 } },
      `${extension}, cut off`,
    )
  }
})

t.test('an rpm without vmlinux, or with a symlink instead, is rejected', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const { image } = packaged(runDirectory)
  const shim = makeRpm(runDirectory.directory, { files: { 'usr/share/doc/copyright': image } })
  await fails(t, runDirectory, shim, 'no_vmlinux', /usr\/lib\/debug\/lib\/modules/)

  const other = await makeRunDirectory(t)
  const link = join(other.directory, 'link')
  symlinkSync('/etc/passwd', link)
  const linked = join(other.directory, 'linked.rpm')
  const payload = cpioOf([cpioEntry(`./${PATH}`, '/etc/passwd', { mode: 0o120777 })])
  writeFileSync(linked, rpmOf({ 1117: [`/${PATH}`] }, payload))
  await fails(t, other, linked, 'no_vmlinux', /none of/)
})

t.test('a file in a package with a path like ../../etc/passwd is not written', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const names = ['../../etc/passwd', `../../${PATH}`, `/../../${PATH}`]
  const payload = cpioOf(names.map((name) => cpioEntry(name, 'root::0:0')))
  const file = join(runDirectory.directory, 'climbing.rpm')
  writeFileSync(file, rpmOf({ 1117: names.map((name) => name.replace(/^\.?\//, '/')) }, payload))
  await fails(t, runDirectory, file, 'no_vmlinux', /none of/)
})

t.test('an rpm that is truncated or has a changed payload is rejected', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const { file } = packaged(runDirectory, { payload: 'xz' })
  const bytes = readFileSync(file)
  writeFileSync(file, bytes.subarray(0, -100))
  await fails(t, runDirectory, file, 'truncated', /header and payload have \d+ of \d+ bytes/)

  const other = await makeRunDirectory(t)
  const changed = packaged(other, { payload: 'xz' }).file
  bytes[bytes.length - 10]! ^= 1
  writeFileSync(changed, bytes)
  await fails(t, other, changed, 'digest_mismatch', /payload does not match/)
})

t.test('a file with another digest than its package lists is rejected', async (t) => {
  const runDirectory = await makeRunDirectory(t)
  const payload = cpioOf([cpioEntry(`./${PATH}`, 'other bytes')])
  const file = join(runDirectory.directory, 'other.rpm')
  const tags = { 1117: [`/${PATH}`], 1035: ['00'.repeat(32)], 5011: { int32: [8] } }
  writeFileSync(file, rpmOf(tags, payload))
  await fails(
    t,
    runDirectory,
    file,
    'digest_mismatch',
    /has sha256 [0-9a-f]{64}, the package says 0{64}/,
  )
})

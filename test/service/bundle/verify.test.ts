// The verification of a bundle: missing, unlisted and changed members; the signature of the manifest.
import t from 'tap'
import { decodeManifest, encodeManifest, signManifest } from '../../../service/bundle/manifest.ts'
import { type BundleFile, verifyBundle } from '../../../service/bundle/verify.ts'
import { generateKeys } from '../../../storage/index.ts'
import { bundlesOfKernels, DECOMPRESSORS, KERNELS, membersOf } from '../../helpers/bundles.ts'

const keys = generateKeys()
const bundle = await (await bundlesOfKernels(KERNELS)).pack({ secretKey: keys.secretKey })
const files: BundleFile[] = (await membersOf(DECOMPRESSORS.xz!(bundle.archive))).map(
  ({ name, link, bytes }) => ({
    path: name,
    bytes: link ? undefined : bytes,
    ...(link && { link }),
  }),
)
const [first] = files as [BundleFile]
const manifest = decodeManifest(bundle.manifest)

async function verify(changed: readonly BundleFile[], publicKey?: string, beside = {}) {
  const source = async function* () {
    yield* changed
  }
  return await verifyBundle(source(), beside, publicKey)
}
const without = (...paths: string[]) => files.filter(({ path }) => !paths.includes(path))
const replaced = (path: string, bytes: Buffer) => [...without(path), { path, bytes }]

t.test('a complete bundle with hard links has no problems', async (t) => {
  t.ok(files.some(({ link }) => link))
  t.same(await verify(files), { kernels: 6, signed: false, problems: [] })
  t.same(await verify(files, keys.publicKey), { kernels: 6, signed: true, problems: [] })
})

t.test('missing, changed and unlisted members are reported', async (t) => {
  const last = files.filter(({ link }) => link).at(-1)!.path
  t.same((await verify(without(last))).problems, [{ path: last, message: 'is missing' }])
  const more = [...files, { path: 'more.btf', bytes: Buffer.from('x') }]
  t.same((await verify(more)).problems, [{ path: 'more.btf', message: 'is not in the manifest' }])
  const { problems } = await verify([
    { path: first.path, bytes: Buffer.from('x') },
    ...files.slice(1),
  ])
  const same = files.filter(({ link }) => link === first.path)
  t.same(problems.map(({ path }) => path).sort(), [first, ...same].map(({ path }) => path).sort())
  const nowhere = files.map((file) => (file.link ? { ...file, link: 'nowhere' } : file))
  t.equal((await verify(nowhere)).problems.length, files.filter(({ link }) => link).length)
  const device = files.map((file) => (file === first ? { ...file, bytes: undefined } : file))
  t.match((await verify(device)).problems, [{ path: first.path }])
})

t.test('a manifest that is missing, invalid or not signed by the key is refused', async (t) => {
  const other = generateKeys()
  await t.rejects(verify(files, other.publicKey), { code: 'invalid_signature' })
  await t.rejects(verify(files, 'nonsense'), { code: 'invalid_key' })
  const changed = replaced('manifest.json', encodeManifest({ ...manifest, btfmill: '9' }))
  await t.rejects(verify(changed, keys.publicKey), { code: 'invalid_signature' })
  const unsigned = without('manifest.json.minisig')
  t.match(await verify(unsigned), { problems: [] })
  await t.rejects(verify(unsigned, keys.publicKey), {
    code: 'invalid_bundle',
    message: /not signed/,
  })
  await t.rejects(verify(without('manifest.json')), { code: 'invalid_bundle' })
  for (const text of ['', '{', 'null', '{}', JSON.stringify({ ...manifest, schema: 2 })])
    await t.rejects(
      verify(replaced('manifest.json', Buffer.from(text))),
      { code: 'invalid_bundle' },
      text.slice(0, 20),
    )
})

t.test('a manifest beside the archive is verified like one inside', async (t) => {
  const members = without('manifest.json', 'manifest.json.minisig')
  const signature = signManifest(bundle.manifest, keys.secretKey)
  t.ok(signature.equals(bundle.signature!), 'a signature has no timestamp')
  const beside = { manifest: bundle.manifest, signature }
  t.same(await verify(members, keys.publicKey, beside), { kernels: 6, signed: true, problems: [] })
})

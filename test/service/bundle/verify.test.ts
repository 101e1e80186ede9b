// A bundle against its manifest: what is missing, too much or different; and whose word the manifest is.
import t from 'tap'
import { decodeManifest, encodeManifest, signManifest } from '../../../service/bundle/manifest.ts'
import { type BundleFile, verifyBundle } from '../../../service/bundle/verify.ts'
import { generateKeys } from '../../../storage/index.ts'
import { KERNELS, membersOf, PLAIN, shelfOf } from '../../helpers/bundles.ts'

const mine = generateKeys()
const bundle = await (await shelfOf(KERNELS)).pack({ secretKey: mine.secretKey })
const files: BundleFile[] = (await membersOf(PLAIN.xz!(bundle.archive))).map(
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

t.test('a whole one, hard links and all', async (t) => {
  t.ok(files.some(({ link }) => link))
  t.same(await verify(files), { kernels: 6, signed: false, problems: [] })
  t.same(await verify(files, mine.publicKey), { kernels: 6, signed: true, problems: [] })
})

t.test('members that are missing, different, or too many', async (t) => {
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

t.test('a manifest that is not ours, or none', async (t) => {
  const other = generateKeys()
  await t.rejects(verify(files, other.publicKey), { code: 'invalid_signature' })
  await t.rejects(verify(files, 'nonsense'), { code: 'invalid_key' })
  const changed = replaced('manifest.json', encodeManifest({ ...manifest, btfmill: '9' }))
  await t.rejects(verify(changed, mine.publicKey), { code: 'invalid_signature' })
  const unsigned = without('manifest.json.minisig')
  t.match(await verify(unsigned), { problems: [] })
  await t.rejects(verify(unsigned, mine.publicKey), {
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

t.test('beside the archive', async (t) => {
  const members = without('manifest.json', 'manifest.json.minisig')
  const signature = signManifest(bundle.manifest, mine.secretKey)
  t.ok(signature.equals(bundle.signature!), 'a signature says nothing of the time')
  const beside = { manifest: bundle.manifest, signature }
  t.same(await verify(members, mine.publicKey, beside), { kernels: 6, signed: true, problems: [] })
})

/* Real modules: all thousand that a Debian kernel's package holds, merged over the BTF in its image. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import {
  type Btf,
  encodeBtf,
  layoutOf,
  mergeBtf,
  openObject,
  parseBtf,
  readBtf,
  relocate,
} from '../../bpf/index.ts'
import { differences } from '../bpf/oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from '../bpf/oracle/libbpf.ts'
import { findPackages, unpackPackage } from '../e2e/package.ts'
import { coreObjects } from '../helpers/core.ts'
import { bpftoolDump, dump } from '../helpers/fixtures.ts'

/** 64-bit ARM's image is not compressed, nor are bookworm's modules; the package has 20 MB. */
const KERNEL = { distro: 'debian', version: '12', arch: 'aarch64' }
const IMAGE = /^linux-image-6\.1\.0-\d+-cloud-arm64$/
const BTF_START = Buffer.from('9feb010018000000', 'hex')

async function unpackKernel(folder: string): Promise<{ base: Btf; modules: Btf[] }> {
  const [pkg] = await findPackages(KERNEL, (name) => IMAGE.test(name))
  if (!pkg) throw new Error(`Debian ${KERNEL.version} has no ${IMAGE}`)
  await unpackPackage(pkg, folder, ['*/vmlinuz-*', '*.ko'])
  const [path = ''] = globSync(join(folder, 'boot/vmlinuz-*'))
  const image = readFileSync(path)
  const base = parseBtf(image.subarray(image.indexOf(BTF_START)))
  const modules = globSync(join(folder, '**/*.ko')).map((file) =>
    readBtf(readFileSync(file), { base }),
  )
  return { base, modules }
}

/** What programs can ask of a type of a module: for each with a name, its kind, and its layout or values. */
function* statements(btf: Btf): Generator<string> {
  for (const type of btf.types()) {
    if (type.name === '') continue
    if (type.kind === 'STRUCT' || type.kind === 'UNION') yield JSON.stringify(layoutOf(btf, type))
    else if (type.kind === 'ENUM' && type.values.length > 0)
      yield JSON.stringify({ ...type, id: 0 })
    else if (type.kind === 'FUNC' || type.kind === 'TYPEDEF') yield `${type.kind} ${type.name}`
  }
}

t.test('a kernel with all its modules', async (t) => {
  const folder = t.testdir()
  const { base, modules } = await unpackKernel(folder)
  const split = modules.reduce((sum, module) => sum + module.typeCount, 0)
  const path = join(folder, 'merged.btf')
  writeFileSync(path, mergeBtf(base, modules))
  const merged = parseBtf(readFileSync(path))
  const added = merged.typeCount - base.typeCount
  t.ok(
    modules.length > 500 && added < split,
    `${modules.length} modules: ${added} types of ${split}`,
  )

  const { start, end } = base.header.types
  const prefix = merged.bytes.subarray(start, end)
  t.ok(Buffer.from(base.bytes.subarray(start, end)).equals(prefix), 'the base as it was')
  t.equal(bpftoolDump(path), dump(merged), 'bpftool reads the same')

  const said = new Set(statements(merged))
  const lost = modules.flatMap((module) =>
    [...statements(module)].filter((text) => !said.has(text)),
  )
  t.same(lost, [], 'every type of every module is there')

  const own = [...merged.types()].slice(base.typeCount)
  const again = mergeBtf(base, [parseBtf(encodeBtf(own, { base }), { base })])
  t.equal(parseBtf(again).typeCount, merged.typeCount, 'no two are equal')

  const harness = await buildRelocate(folder)
  for (const object of coreObjects('el').values()) {
    const opened = openObject(readFileSync(object))
    const theirs = await relocateWithLibbpf([harness], object, path)
    const ours = relocate(opened, merged)
    t.same(
      differences(theirs, ours),
      [],
      `${basename(object)}: libbpf relocates against it as we do`,
    )
    t.same(ours.relocations, relocate(opened, base).relocations, 'and as against the base')
  }
})

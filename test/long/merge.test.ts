/* Real modules: about a thousand of a Debian kernel's package, merged into the BTF of its image. */
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
import { findDebianPackages, unpackDebianPackage } from '../../generator/prove/package.ts'
import { differences } from '../bpf/oracle/agreement.ts'
import { buildRelocate, relocateWithLibbpf } from '../bpf/oracle/libbpf.ts'
import { coreObjects } from '../helpers/core.ts'
import { bpftoolDump, dump } from '../helpers/fixtures.ts'

/** Images for 64-bit ARM and bookworm's modules are not compressed, and this package has only 20 MB. */
const KERNEL = { distro: 'debian', version: '12', arch: 'aarch64' }
const IMAGE = /^linux-image-6\.1\.0-\d+-cloud-arm64$/
const BTF_START = Buffer.from('9feb010018000000', 'hex')

async function unpackKernel(folder: string): Promise<{ base: Btf; modules: Btf[] }> {
  const [pkg] = await findDebianPackages(KERNEL, (name) => IMAGE.test(name))
  if (!pkg) throw new Error(`Debian ${KERNEL.version} has no ${IMAGE}`)
  await unpackDebianPackage(pkg, folder, ['*/vmlinuz-*', '*.ko'])
  const [path = ''] = globSync(join(folder, 'boot/vmlinuz-*'))
  const image = readFileSync(path)
  const base = parseBtf(image.subarray(image.indexOf(BTF_START)))
  const modules = globSync(join(folder, '**/*.ko')).map((file) =>
    readBtf(readFileSync(file), { base }),
  )
  return { base, modules }
}

/** Yields the facts that programs use about each named type: its kind, and its layout or values. */
function* statements(btf: Btf): Generator<string> {
  for (const type of btf.types()) {
    if (type.name === '') continue
    if (type.kind === 'STRUCT' || type.kind === 'UNION') yield JSON.stringify(layoutOf(btf, type))
    else if (type.kind === 'ENUM' && type.values.length > 0)
      yield JSON.stringify({ ...type, id: 0 })
    else if (type.kind === 'FUNC' || type.kind === 'TYPEDEF') yield `${type.kind} ${type.name}`
  }
}

t.test(
  'a kernel merged with all its modules keeps every type, and libbpf relocates against it',
  async (t) => {
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
    t.ok(
      Buffer.from(base.bytes.subarray(start, end)).equals(prefix),
      'the types of the base are unchanged',
    )
    t.equal(bpftoolDump(path), dump(merged), 'bpftool reads the same types')

    const said = new Set(statements(merged))
    const lost = modules.flatMap((module) =>
      [...statements(module)].filter((text) => !said.has(text)),
    )
    t.same(lost, [], 'no type of any module is lost')

    const own = [...merged.types()].slice(base.typeCount)
    const again = mergeBtf(base, [parseBtf(encodeBtf(own, { base }), { base })])
    t.equal(parseBtf(again).typeCount, merged.typeCount, 'no type is there twice')

    const harness = await buildRelocate(folder)
    for (const object of coreObjects('el').values()) {
      const opened = openObject(readFileSync(object))
      const theirs = await relocateWithLibbpf([harness], object, path)
      const ours = relocate(opened, merged)
      t.same(differences(theirs, ours), [], `${basename(object)}: libbpf relocates as we do`)
      t.same(
        ours.relocations,
        relocate(opened, base).relocations,
        'the result is that of the base alone',
      )
    }
  },
)

/*
 * Properties of any BTF, on real kernels. Encoding gives back the bytes that were parsed. A dialect has only its kinds, and
 * the same sizes. The C header of a whole kernel compiles to the sizes and offsets of its BTF. Minimized BTF is a subset.
 * A diff with itself is empty.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  compareLayouts,
  DIALECTS,
  type Dialect,
  diffBtf,
  encodeBtf,
  KIND,
  type KindName,
  minimizeBtf,
  openObject,
  parseBtf,
  toDialect,
} from '../../bpf/index.ts'
import { compile, type Triple, withAsserts } from '../helpers/compile.ts'
import { coreObjects } from '../helpers/core.ts'
import { dump } from '../helpers/fixtures.ts'
import { kernels } from './kernels.ts'

/** clang's targets by `uname -m`. Debian's MIPS is little-endian. */
const TRIPLES: Readonly<Record<string, Triple>> = {
  i686: 'i386-linux-gnu',
  x86_64: 'x86_64-linux-gnu',
  aarch64: 'aarch64-linux-gnu',
  armv5tel: 'arm-linux-gnueabi',
  armv7l: 'arm-linux-gnueabihf',
  mips: 'mipsel-linux-gnu',
  mips64: 'mips64el-linux-gnuabi64',
  ppc64le: 'powerpc64le-linux-gnu',
  riscv64: 'riscv64-linux-gnu',
  s390x: 's390x-linux-gnu',
}

/** clang's warnings about kernel headers that do not concern layouts. */
const QUIET = ['attributes', 'visibility', 'unknown-attributes', 'ignored-attributes']

for (const { name, arch, path } of await kernels()) {
  const bytes = readFileSync(path)
  const btf = parseBtf(bytes)
  const { byteOrder, pointerSize, strings } = btf

  t.test(`${name}: encoding the parsed types gives the same bytes`, async (t) => {
    t.ok(Buffer.from(encodeBtf(btf.types(), { byteOrder, strings })).equals(bytes), 'equal bytes')
    const again = parseBtf(encodeBtf(btf.types(), { byteOrder }))
    t.ok(dump(again) === dump(btf), 'with new strings, the types are equal')
    t.same(diffBtf(btf, again), { added: [], removed: [], changed: [] })
  })

  t.test(`${name}: each dialect has only its kinds, with equal layouts`, async (t) => {
    for (const dialect of Object.keys(DIALECTS) as Dialect[]) {
      const older = parseBtf(toDialect(btf, dialect), { pointerSize })
      const strange = older.kinds().filter((kind) => KIND[kind as KindName] > DIALECTS[dialect])
      t.same(strange, [], dialect)
      const { different, missing } = compareLayouts(btf, older)
      t.same([...different, ...missing], [], 'sizes and offsets')
      t.equal(older.typeCount, btf.typeCount)
    }
  })

  t.test(`${name}: the C header compiles to the same sizes and offsets`, async (t) => {
    const { text, count } = withAsserts(btf)
    const warnings = QUIET.map((warning) => `-Wno-${warning}`)
    t.doesNotThrow(() => compile(text, TRIPLES[arch]!, '-fsyntax-only', ...warnings))
    t.ok(count > 10_000, `${count} asserts`)
  })

  t.test(`${name}: minimized BTF is a subset`, async (t) => {
    for (const [object, file] of coreObjects(byteOrder === 'little' ? 'el' : 'eb')) {
      if (object === 'ambiguous') continue
      const small = parseBtf(minimizeBtf(btf, [openObject(readFileSync(file))]), { pointerSize })
      const { added } = diffBtf(btf, small)
      t.same(added, [], `${object}: ${small.typeCount} types`)
    }
  })
}

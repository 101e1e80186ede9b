/*
 * Objects that need types of modules. As in libbpf's `bpf_core_find_cands`, candidates in vmlinux win, and modules
 * count only where vmlinux has none.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type Btf,
  type BtfType,
  checkObject,
  encodeBtf,
  minimizeBtf,
  needsModules,
  openObject,
  parseBtf,
  relocate,
} from '../../bpf/index.ts'
import { caseFile } from '../helpers/cases.ts'
import { wholeKernel } from '../helpers/core.ts'

/** The types of each struct: its name, and the offset in bytes of its member by the member's name. */
type Structs = Readonly<Record<string, Readonly<Record<string, number>>>>

/** BTF with an `int`, then structs of 64 bytes with members of that type. */
function btfOf(structs: Structs, base?: Btf): Btf {
  const start = base?.endId ?? 1
  const int: BtfType = {
    kind: 'INT',
    id: 1,
    name: 'int',
    size: 4,
    bitOffset: 0,
    bits: 32,
    signed: true,
    char: false,
    bool: false,
  }
  const first = base ? start : 2
  const types = Object.entries(structs).map(
    ([name, members], n): BtfType => ({
      kind: 'STRUCT',
      id: first + n,
      name,
      size: 64,
      flag: false,
      members: Object.entries(members).map(([name, offset]) => {
        return { name, type: 1, bitOffset: offset * 8, bitfieldSize: 0 }
      }),
    }),
  )
  const bytes = base ? encodeBtf(types, { base }) : encodeBtf([int, ...types])
  return parseBtf(bytes, base ? { base } : {})
}

const object = openObject(readFileSync(caseFile('module-type.o')))
const task = { task_struct: { pid: 40 } }
const vmlinux = wholeKernel(btfOf(task))
const good = btfOf({ good_state: { n: 16 } }, vmlinux)
const values = (kernel: Btf, modules: Btf[] = []) =>
  relocate(object, kernel, modules).relocations.map(({ outcome }) =>
    outcome.is === 'ok' ? Number(outcome.new) : outcome.is,
  )

t.test('a type that only a module has is found there', async (t) => {
  t.same(values(vmlinux), ['poisoned', 40])
  t.same(values(vmlinux, [btfOf({ other: { n: 1 } }, vmlinux), good]), [16, 40])
  t.equal(checkObject(object, vmlinux).loads, 'no')
  t.equal(checkObject(object, vmlinux, { modules: [good] }).loads, 'yes')
  t.ok(needsModules(object, vmlinux))
})

t.test('where vmlinux has a candidate, those of modules are not tried', async (t) => {
  const both = btfOf({ ...task, good_state: { n: 32 } })
  t.same(values(both, [btfOf({ good_state: { n: 16 }, task_struct: { pid: 1 } }, both)]), [32, 40])
  const without = btfOf({ ...task, good_state: { m: 32 } })
  t.same(
    values(without, [btfOf({ good_state: { n: 16 } }, without)]),
    ['poisoned', 40],
    'even if none of vmlinux matches',
  )
  t.notOk(needsModules(object, both))
})

t.test('the types of two modules must agree', async (t) => {
  t.same(values(vmlinux, [good, btfOf({ good_state: { n: 16, m: 0 } }, vmlinux)]), [16, 40])
  t.same(values(vmlinux, [good, btfOf({ good_state: { n: 20 } }, vmlinux)]), ['fatal', 40])
})

t.test('minimized BTF has the types of modules, since loaders read only that file', async (t) => {
  const other = btfOf({ unrelated: { x: 4 }, good_state: { n: 16 } }, vmlinux)
  const bytes = minimizeBtf(vmlinux, [object], [good, other])
  t.same(values(parseBtf(bytes)), [16, 40])
  t.equal(parseBtf(bytes).find('unrelated'), undefined)
  t.equal(parseBtf(bytes).typeCount, 3)
  const own = btfOf({ good_state: { n: 16 }, task_struct: { pid: 1 } }, vmlinux)
  t.same(values(parseBtf(minimizeBtf(vmlinux, [object], [own]))), [16, 40], "not the module's own")
  const both = btfOf({ ...task, good_state: { n: 32 } })
  const over = [btfOf({ good_state: { n: 16 }, task_struct: { pid: 1 } }, both)]
  t.same(minimizeBtf(both, [object], over), minimizeBtf(both, [object]))
  t.throws(
    () => minimizeBtf(vmlinux, [object], [good, btfOf({ good_state: { n: 20 } }, vmlinux)]),
    {
      code: 'invalid_relocation',
    },
  )
})

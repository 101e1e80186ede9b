import t from 'tap'
import { compareGraphs, type DumpedType } from './bpftool.ts'

/** task → pointer → task, with two orders of ids. */
const task = (id: number, pointer: number, offset = 64): DumpedType => ({
  id,
  kind: 'STRUCT',
  name: 'task_struct',
  size: 128,
  members: [{ name: 'parent', type_id: pointer, bits_offset: offset }],
})
const pointer = (id: number, target: number): DumpedType => ({
  id,
  kind: 'PTR',
  name: '(anon)',
  type_id: target,
})

t.test('graphs that differ only in type ids are equal', async (t) => {
  t.same(compareGraphs([task(1, 2), pointer(2, 1)], [pointer(1, 2), task(2, 1)]), [])
})

t.test('a type with other content gives one line for each side', async (t) => {
  const lines = compareGraphs([task(1, 2), pointer(2, 1)], [task(1, 2, 96), pointer(2, 1)])
  t.equal(lines.length, 2)
  t.match(lines[0], /^- .*"bits_offset":64/)
  t.match(lines[1], /^\+ .*"bits_offset":96/)
})

t.test('types with equal content and different targets differ', async (t) => {
  const first: DumpedType = { id: 3, kind: 'STRUCT', name: '(anon)', size: 8, members: [{ a: 1 }] }
  const second: DumpedType = { ...first, id: 4, members: [{ b: 1 }] }
  const lines = compareGraphs(
    [pointer(1, 3), { ...pointer(2, 4), kind: 'CONST' }, first, second],
    [pointer(1, 4), { ...pointer(2, 3), kind: 'CONST' }, first, second],
  )
  t.equal(lines.length, 4)
  t.match(lines.join('\n'), /leads elsewhere: .*"PTR"/)
})

t.test('an additional type is a difference', async (t) => {
  t.equal(compareGraphs([pointer(1, 0)], [pointer(1, 0), pointer(2, 0)]).length, 1)
})

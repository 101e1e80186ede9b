// Tests candidates: the kernel's types with the same kind and the same name without flavour.
import t from 'tap'
import { findCandidates } from '../../bpf/candidate.ts'
import type { CoreRelocation } from '../../bpf/ext.ts'
import { type BtfType, encodeBtf, parseBtf } from '../../bpf/index.ts'

const structs = (names: readonly string[], first = 1): BtfType[] =>
  names.map((name, i) => ({
    kind: 'STRUCT',
    id: i + first,
    name,
    size: 0,
    flag: false,
    members: [],
  }))

const relocationsOf = (count: number): CoreRelocation[] =>
  Array.from({ length: count }, (_, i) => ({
    ...{ section: 'tp', index: i, offset: i * 8, type: i + 1, access: '0', kind: 'type_exists' },
  }))

const NAMES = ['x', 'ab', 'abc___mine', 'x___old', 'zz', '___', 'tail']

t.test(
  'candidates have the name without flavour, also for one-byte names and shared prefixes',
  async (t) => {
    const kernel = [
      'x',
      'x___y',
      'xy',
      'a',
      'ab',
      'abc',
      'ab___z',
      'abc___1',
      '____',
      '___',
      'tail',
    ]
    const local = parseBtf(encodeBtf(structs(NAMES)))
    const target = parseBtf(encodeBtf(structs(kernel)))
    const found = findCandidates(local, target, relocationsOf(NAMES.length))
    const names = NAMES.map((_, i) => (found.get(i + 1) ?? []).map((id) => target.name(id)))
    t.same(names, [
      ['x', 'x___y'],
      ['ab', 'ab___z'],
      ['abc', 'abc___1'],
      ['x', 'x___y'],
      [],
      ['___'],
      ['tail'],
    ])
  },
)

t.test('candidates come from a module and from its base', async (t) => {
  const base = parseBtf(encodeBtf(structs(['ab', 'other'])))
  const own = structs(['x', 'ab', 'tail'], base.endId)
  const module = parseBtf(encodeBtf(own, { base }), { base })
  const found = findCandidates(parseBtf(encodeBtf(structs(NAMES))), module, relocationsOf(7))
  t.same([found.get(1), found.get(2), found.get(7)], [[3], [1, 4], [5]])
})

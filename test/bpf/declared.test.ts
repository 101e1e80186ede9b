// DeclaredForms: what a BTF declares, and that equal keys mean equal forms.
import t from 'tap'
import {
  type Btf,
  type BtfType,
  DECLARATION_KINDS,
  DeclaredForms,
  encodeBtf,
  parseBtf,
} from '../../bpf/index.ts'
import { craft } from '../helpers/craft.ts'
import { fixture, fixtureNames } from '../helpers/fixtures.ts'

const INT: BtfType = {
  kind: 'INT',
  ...{ id: 1, name: 'int', size: 4, signed: true },
  ...{ char: false, bool: false, bits: 32, bitOffset: 0 },
}

const struct = (id: number, name: string, size: number, type: number): BtfType => ({
  kind: 'STRUCT',
  ...{ id, name, size, flag: false },
  members: [{ name: 'm', type, bitOffset: 0, bitfieldSize: 0 }],
})

const declared = (...types: BtfType[]) => new DeclaredForms(parseBtf(encodeBtf(types)))

const keys = (forms: DeclaredForms) =>
  new Map(
    [...Array(forms.length).keys()].map((i) => [
      `${forms.kind(i)} ${forms.name(i)}`,
      `${forms.low(i)} ${forms.high(i)}`,
    ]),
  )

t.test('kfuncs, tracepoints, helpers and map types follow from types', async (t) => {
  const forms = declared(
    INT,
    { kind: 'PTR', id: 2, name: '', type: 0, flag: false },
    {
      kind: 'FUNC_PROTO',
      ...{ id: 3, name: '', type: 0 },
      parameters: [
        { name: '__data', type: 2 },
        { name: 'prev', type: 1 },
      ],
    },
    { kind: 'PTR', id: 4, name: '', type: 3, flag: false },
    { kind: 'TYPEDEF', id: 5, name: 'btf_trace_sched_switch', type: 4, flag: false },
    { kind: 'FUNC', id: 6, name: 'bpf_do', type: 3, linkage: 'static' },
    { kind: 'DECL_TAG', id: 7, name: 'bpf_kfunc', type: 6, component: -1, flag: false },
    {
      kind: 'ENUM',
      ...{ id: 8, name: 'bpf_func_id', size: 4, signed: false },
      values: [
        { name: 'BPF_FUNC_x', value: 3 },
        { name: '__BPF_FUNC_MAX_ID', value: 4 },
      ],
    },
    {
      kind: 'ENUM',
      ...{ id: 9, name: 'bpf_map_type', size: 4, signed: false },
      values: [{ name: 'BPF_MAP_TYPE_HASH', value: 1 }],
    },
  )
  t.same(
    [...keys(forms).keys()].filter((name) => !/^(int|typedef|func|enum) /.test(name)),
    ['tracepoint sched_switch', 'kfunc bpf_do', 'helper BPF_FUNC_x', 'map_type BPF_MAP_TYPE_HASH'],
  )
  const at = (kind: string) =>
    forms.form([...Array(forms.length).keys()].find((i) => forms.kind(i) === kind)!)
  t.equal(at('tracepoint').declaration, 'void sched_switch(int prev)')
  t.equal(at('kfunc').declaration, 'void bpf_do(void *__data, int prev)')
  t.same(at('helper').values, [{ name: 'BPF_FUNC_x', value: '3' }])
})

t.test('a key tells the size of members, but not what pointers point at', async (t) => {
  const pointer = { kind: 'PTR', id: 4, name: '', type: 2, flag: false } as const
  const [small, large] = [4, 8].map((size) =>
    keys(
      declared(
        INT,
        struct(2, 'inner', size, 1),
        struct(3, 'outer', 16, 2),
        pointer,
        struct(5, 'to', 8, 4),
      ),
    ),
  )
  t.not(small!.get('struct outer'), large!.get('struct outer'), 'its member has grown')
  t.equal(small!.get('struct to'), large!.get('struct to'))
})

t.test('a forward declaration counts only if the BTF has no definition', async (t) => {
  const names = [
    ...keys(
      declared(
        INT,
        struct(2, 'known', 4, 1),
        { kind: 'FWD', id: 3, name: 'known', of: 'struct' },
        { kind: 'FWD', id: 4, name: 'other', of: 'union' },
      ),
    ).keys(),
  ]
  t.same(names, ['int int', 'struct known', 'fwd other'])
})

t.test('equal keys mean equal forms, over all fixtures', async (t) => {
  const forms = new Map<string, string>()
  let equal = 0
  for (const name of fixtureNames(/^types-.*\.btf$/)) {
    const all = new DeclaredForms(parseBtf(fixture(name)))
    for (let i = 0; i < all.length; i++) {
      const key = `${all.low(i)} ${all.high(i)}`
      const text = JSON.stringify([all.kind(i), all.name(i), all.form(i)])
      const known = forms.get(key)
      if (known !== undefined) equal++
      if (known !== undefined && known !== text) t.equal(known, text)
      forms.set(key, text)
    }
  }
  t.ok(equal > 100, `${equal} keys of several fixtures`)
})

t.test('BTF in an odd form declares the same', async (t) => {
  const plain = parseBtf(encodeBtf([INT, struct(2, 's', 4, 1)]))
  const words = new Uint32Array(plain.bytes.slice(24, plain.header.types.end).buffer)
  const strings = Buffer.from(plain.strings).toString('latin1')
  // a header of 32 bytes
  const odd: Btf = parseBtf(craft([...words], strings, [0, 0]))
  const formsOf = (btf: Btf) => {
    const all = new DeclaredForms(btf)
    return [...Array(all.length).keys()].map((i) => [all.kind(i), all.name(i), all.form(i)])
  }
  t.same(formsOf(odd), formsOf(plain))
})

t.test('kinds are in a fixed order, which the index stores', async (t) => {
  t.same(
    [...DECLARATION_KINDS],
    [
      ...['struct', 'union', 'enum', 'typedef', 'func', 'fwd', 'int', 'float'],
      ...['kfunc', 'tracepoint', 'helper', 'map_type'],
    ],
  )
})

// A type as lines for a page, its users, and the search for names.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  type LinkedText,
  listType,
  parseBtf,
  printLayout,
  searchNames,
  type TypeListing,
  usersOf,
} from '../../bpf/index.ts'
import { littleKernels } from '../helpers/core.ts'
import { craft, info } from '../helpers/craft.ts'
import { fixture } from '../helpers/fixtures.ts'

const kernel = parseBtf(readFileSync(littleKernels().get('x86_64')!))
const types = parseBtf(fixture('types-x86_64.btf'))

const plain = (text: LinkedText) =>
  text.map((part) => (typeof part === 'string' ? part : part.name)).join('')

/** The text of the first line. */
const firstOf = ({ lines: [line] }: TypeListing) => (line && 'text' in line ? plain(line.text) : '')

t.test('a listing has the members of printLayout, with their offsets and sizes', (t) => {
  for (const btf of [kernel, types])
    for (const type of btf.types()) {
      if ((type.kind !== 'STRUCT' && type.kind !== 'UNION') || type.name === '') continue
      const printed = printLayout(btf, type.id)
      const places = [...printed.matchAll(/\/\* +(\d+) +(\d+) \*\//g)].map(([, at, size]) => [
        Number(at),
        Number(size),
      ])
      const { lines, holes, size } = listType(btf, type.id)
      const listed = lines.flatMap((line) =>
        (line.is === 'member' || line.is === 'close') && line.bits === 0
          ? [[line.offset / 8, line.size]]
          : [],
      )
      t.same(listed, places, type.name)
      t.equal(size, type.size)
      t.equal(holes, Number(/holes: (\d+)/.exec(printed)?.[1] ?? 0), type.name)
    }
  t.end()
})

t.test('names of other types stand apart from the text', (t) => {
  const { lines } = listType(kernel, kernel.find('task_struct', 'STRUCT')!)
  const parent = lines.find((line) => line.is === 'member' && line.path === 'group_leader')
  t.match(parent, { text: ['struct ', { kind: 'struct', name: 'task_struct' }, ' *group_leader;'] })
  const all = lines.flatMap((line) => ('text' in line ? [plain(line.text)] : []))
  t.equal(all[0], 'struct task_struct {')
  t.equal(all.at(-1), '};')
  t.end()
})

t.test('enums, typedefs and functions are listed', (t) => {
  const values = listType(kernel, kernel.find('pid_type', 'ENUM')!)
  t.match(values, { kind: 'enum', elements: Number })
  t.match(values.lines[1], { is: 'value', name: String, value: '0' })
  const typedef = listType(kernel, kernel.find('pid_t', 'TYPEDEF')!)
  t.match(firstOf(typedef), /^typedef .*pid_t;$/)
  const entry = listType(types, types.find('entry', 'FUNC')!)
  t.equal(entry.kind, 'func')
  t.match(firstOf(entry), /entry\(/)
  t.throws(() => listType(types, types.find('int')!), { code: 'unsupported' })
  t.end()
})

t.test('a type that contains itself is an error', (t) => {
  // a struct whose only member is an anonymous struct, which has itself as its member
  const loop = parseBtf(craft([1, info(4, 1), 4, 0, 2, 0, 0, info(4, 1), 4, 0, 2, 0], '\0t\0'))
  t.throws(() => listType(loop, 1), { code: 'cycle' })
  t.end()
})

t.test('users of a type are the types and functions that name it, behind pointers too', (t) => {
  const task = new Set([kernel.find('task_struct', 'STRUCT')!])
  const { types: found, typeCount } = usersOf(kernel, task, 2)
  t.equal(found.length, Math.min(typeCount, 2))
  const all = usersOf(kernel, new Set([kernel.find('pid_namespace', 'STRUCT')!]), 50)
  t.ok(all.types.some(({ name, member }) => name === 'upid' && member === 'ns'))
  t.end()
})

t.test('a search ranks equal names first, then beginnings, and ignores case', (t) => {
  const names = (text: string) => searchNames(kernel, text, 20).map(({ name }) => name)
  t.equal(names('sock')[0], 'sock')
  t.ok(names('sock').includes('sock_common'))
  t.equal(names('TASK_STRUCT')[0], 'task_struct')
  t.same(names(''), [])
  t.same(names('no such name'), [])
  t.equal(searchNames(kernel, 's', 3).length, 3)
  t.end()
})

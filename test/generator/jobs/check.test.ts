// The checks of a kernel's BTF before it is published: names that stand for several structs.
import { join } from 'node:path'
import t from 'tap'
import { checkBtf } from '../../../generator/jobs/check.ts'
import { run } from '../../helpers/command.ts'
import { craft, info } from '../../helpers/craft.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeVmlinux, structsNamed } from '../../helpers/vmlinux.ts'

t.test('a kernel with two different task_structs fails with ambiguous_types', async (t) => {
  const env = await makeRunDirectory(t)
  const image = join(env.directory, 'vmlinux')
  makeVmlinux(image, { more: structsNamed(['task_struct']) })
  t.match(await env.run([image]), { published: 0, failed: { ambiguous_types: 1 } })
  t.match(await env.records(), [
    { failure: { code: 'ambiguous_types', message: /layouts.*: task_struct$/, retryAt: null } },
  ])
})

t.test('other structs with several layouts are recorded, and list names them', async (t) => {
  const env = await makeRunDirectory(t)
  const image = join(env.directory, 'vmlinux')
  makeVmlinux(image, { more: structsNamed(['list_head', 'single']) })
  t.match(await env.run([image]), { published: 1 })
  t.match(await env.records(), [{ btf: { ambiguous: { count: 1, names: ['list_head'] } } }])
  const list = ['list', '--store', env.storeUrl]
  t.match((await run(...list)).stdout, /1 ambiguous struct name \(list_head\)/)
  t.match(JSON.parse((await run(...list, '--json')).stdout).btf.ambiguous, { count: 1 })
})

/** BTF with a task_struct that passes the checks, then other types. */
function withTask(words: readonly number[], strings: string): Buffer {
  const int = [1, info(1), 4, 0x01000020]
  const array = [0, info(3), 0, 1, 1, 1024]
  const task = [5, info(4, 3), 4104, 17, 1, 0, 21, 1, 32, 26, 2, 64]
  return craft(
    [...int, ...array, ...task, ...words],
    `\0int\0task_struct\0pid\0tgid\0rest\0${strings}`,
  )
}

t.test('a struct and a union of one name, and equal structs, are not ambiguous', async (t) => {
  // at offset 31: "a"
  const member = [17, 1, 0]
  const struct = [31, info(4, 1), 4, ...member]
  t.equal(checkBtf(withTask([...struct, ...struct], 'a\0')).ambiguous, undefined)
  t.equal(checkBtf(withTask([...struct, 31, info(5, 1), 4, ...member], 'a\0')).ambiguous, undefined)
  const moved = [31, info(4, 1), 8, 17, 1, 32]
  const longer = [31, info(4, 1), 8, ...member]
  for (const other of [moved, longer])
    t.same(checkBtf(withTask([...struct, ...other], 'a\0')).ambiguous, { count: 1, names: ['a'] })
  const flavoured = [33, info(4, 1), 8, ...member]
  t.same(
    checkBtf(withTask([...struct, ...flavoured], 'a\0a___new\0')).ambiguous,
    { count: 1, names: ['a'] },
    'libbpf ignores flavours',
  )
})

t.test('a record names at most 16 structs', async (t) => {
  const names = Array.from({ length: 20 }, (_, i) => `s${String(i).padStart(2, '0')}`)
  const words = names.flatMap((_, i) => [0, 4].flatMap((size) => [31 + 4 * i, info(4), size]))
  const { ambiguous } = checkBtf(withTask(words, `${names.join('\0')}\0`))
  t.match(ambiguous, { count: 20 })
  t.same(ambiguous?.names, names.slice(0, 16))
})

t.test(
  'BTF in which sched_class is only declared is made from headers, and no whole kernel’s',
  (t) => {
    const declared = [31, info(7), 0] // BTF_KIND_FWD
    const defined = [31, info(4, 1), 8, 17, 1, 0]
    const made = withTask(declared, 'sched_class\0')
    t.throws(() => checkBtf(made), {
      code: 'invalid_btf',
      message: /struct sched_class is only declared, as in partial BTF made from headers$/,
    })
    t.match(checkBtf(made, undefined, { isPartial: true }), { types: 4 })
    t.match(checkBtf(withTask([...declared, ...defined], 'sched_class\0')), { types: 5 })
    t.match(checkBtf(withTask([], '')), { types: 3 }, 'kernels before 3.10')
    t.end()
  },
)

// The agents in C and in Go on Debian kernels without BTF, in QEMU: 5.10 and 6.1, 32-bit little-endian and 64-bit
// big-endian, with the network up, late and absent. Each kernel boots once.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { endianness } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { parseBtf, type StructType } from '../../bpf/index.ts'
import { withScratch } from '../../generator/scratch.ts'
import { openStore } from '../../storage/index.ts'
import { serve } from '../e2e/btfmill.ts'
import { bootGuest, buildGuest, fetchBack, generateNewest, RUNS } from '../e2e/path.ts'
import { TARGETS, type Target } from '../e2e/target.ts'

const OWN_ORDER = endianness() === 'LE' ? 'bpfel' : 'bpfeb'

/** Members of task_struct that a kernel has and lacks. */
interface Members {
  has: string[]
  lacks: string[]
}

const GUESTS: [target: Target, version: string, members: Members][] = [
  [TARGETS.i686, '11', { has: ['state', 'cpu'], lacks: ['__state'] }],
  [TARGETS.i686, '12', { has: ['__state'], lacks: ['state', 'cpu'] }],
  [TARGETS.s390x, '12', { has: ['__state'], lacks: ['state', 'cpu'] }],
]

for (const [target, version, { has, lacks }] of GUESTS) {
  t.test(`the agents report processes on Debian ${version} for ${target.arch}`, (t) =>
    withScratch(undefined, async (dir) => {
      const url = `file:${join(dir, 'store')}`
      const filter = { distro: 'debian', version, arch: target.arch }
      const release = target.releases[version]!
      const { record } = await generateNewest(await openStore(url), { ...filter, release })
      t.equal(record.embedded, false)
      const server = await serve(url)
      t.teardown(() => server.stop())
      const btf = join(dir, 'btf')
      await fetchBack(server, record, btf)

      const parsed = parseBtf(await readFile(btf))
      const task = parsed.type(parsed.find('task_struct', 'STRUCT')!) as StructType
      const members = new Set(task.members.map(({ name }) => name))
      t.same(
        [has, lacks].map((names) => names.map((name) => members.has(name))),
        [has.map(() => true), lacks.map(() => false)],
      )

      const { guest } = await buildGuest(target, record, { btf, store: url }, dir, { go: true })
      const console = await bootGuest(guest, server.port)
      t.match(console, { release: record.kernel.release, embedded: false })
      t.same(
        [...console.runs].map(([name, { reported }]) => [name, reported.length]),
        [['none', 0], ...[...RUNS.keys()].map((name) => [name, 2])],
      )

      // the recipes for tools that only read BTF, on the host
      const run = promisify(execFile)
      const object = join(dir, 'exec.bpf.o')
      if (target.bpf === OWN_ORDER)
        // bpftool does not read objects with another byte order
        await run('bpftool', ['gen', 'min_core_btf', btf, join(dir, 'small.btf'), object])
      const env = { ...process.env, BPFTRACE_BTF: btf }
      const { stdout } = await run('bpftrace', ['-lv', 'struct task_struct'], { env })
      t.match(stdout, /struct task_struct \*real_parent;/)
    }),
  )
}

// Tests bpf/example on this machine: it builds without warnings, its readers are bounded, and the tools of its recipes
// accept our BTF. test/e2e and test/long run it in QEMU on kernels without BTF.
import { execFile, execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { memberBits, parseBtf, printLayout, type StructType, sizeOf } from '../../bpf/index.ts'
import { thisKernel } from '../../service/index.ts'
import { littleKernels } from '../helpers/core.ts'

const EXAMPLE = join(import.meta.dirname, '../../bpf/example')
const STRICT = '-O2 -g -Wall -Wextra -Wno-unused-parameter -Werror'
const INCLUDE = `/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`

/** Runs make in bpf/example, with `out` as output directory. */
const make = (out: string, ...args: string[]): string =>
  execFileSync(
    'make',
    ['-C', EXAMPLE, `OUT=${out}`, `CFLAGS=${STRICT}`, `BPF_CFLAGS=${STRICT} -I${INCLUDE}`, ...args],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
  )

const out = t.testdir({})
make(out)
const object = join(out, 'exec.bpf.o')
const kernel = littleKernels().get('x86_64')!

interface Outcome {
  status: number
  stderr: string
}

const run = (program: string, ...args: string[]): Promise<Outcome> =>
  promisify(execFile)(program, args, { timeout: 60_000 }).then(
    ({ stderr }) => ({ status: 0, stderr }),
    ({ code, stderr }) => ({ status: code, stderr }),
  )

t.test('the layout script prints the member offsets of our reader', async (t) => {
  for (const [machine, path] of littleKernels()) {
    const btf = parseBtf(readFileSync(path))
    const id = btf.find('task_struct', 'STRUCT')!
    const type = btf.type(id) as StructType
    const members = type.members
      .filter(({ name }) => name !== '')
      .map((member) => {
        const { offset, size: bits } = memberBits(btf, type, member)
        const [at, size] = bits > 0 ? [0, 0] : [offset / 8, sizeOf(btf, member.type)]
        return { name: member.name, at, size }
      })
    const header = execFileSync(
      join(EXAMPLE, 'layout'),
      [...members.map(({ name }) => `task_struct___x.${name}`), 'task_struct.none'],
      { input: printLayout(btf, id), encoding: 'utf8' },
    )
    const expected = [...members, { name: 'none', at: 0, size: 0 }].flatMap(
      ({ name, at, size }) => {
        const flavour = name === 'none' ? 'task_struct' : 'task_struct___x'
        const place = `#define ${flavour}__${name}__`
        return [`${place}offset ${at}`, `${place}size ${size}`]
      },
    )
    t.ok(members.length > 15)
    t.same(header.trimEnd().split('\n'), expected, machine)
  }
})

t.test(
  'the layout script counts members of unnamed inner structs, and not of named ones',
  async (t) => {
    const listing = `struct a {
	int x;                                           /*     0     4 */
	union {
		int y[3][2];                             /*     4    24 */
		struct {
			int z;                           /*     4     4 */
		};                                       /*     4     4 */
	};                                               /*     4    24 */
	struct {
		int x;                                   /*    28     4 */
		int w;                                   /*    32     4 */
	} named;                                         /*    28     8 */
	int bits:3;                                      /*    36: 3  4 */

	/* size: 40, members: 4 */
};
`
    const members = ['a.x', 'a.y', 'a.z', 'a.w', 'a.named', 'a.bits']
    const text = execFileSync(join(EXAMPLE, 'layout'), members, {
      input: listing,
      encoding: 'utf8',
    })
    t.same(
      [...text.matchAll(/__offset (\d+)\n.* (\d+)/g)].map(([, offset, size]) => [offset, size]),
      [
        ['0', '4'],
        ['4', '24'],
        ['4', '4'],
        ['0', '0'],
        ['28', '8'],
        ['0', '0'],
      ],
    )
    const missing = ['b.x', 'a'].map((wanted) =>
      run('sh', '-c', `echo "$1" | ${join(EXAMPLE, 'layout')} ${wanted}`, 'sh', listing),
    )
    t.match(await Promise.all(missing), [
      { status: 1, stderr: /the input has no struct b/ },
      { status: 1, stderr: /invalid argument a: expected STRUCT.MEMBER/ },
    ])
  },
)

/** Builds an agent with a bundle of these members; a Buffer is used as the bundle. */
function agentWith(t: Test, members: Record<string, Uint8Array> | Buffer): string {
  const home = t.testdir({})
  const bundle = join(home, 'bundle.tar.gz')
  if (Buffer.isBuffer(members)) {
    writeFileSync(bundle, members)
  } else {
    for (const [name, bytes] of Object.entries(members)) {
      mkdirSync(join(home, 'tree', dirname(name)), { recursive: true })
      writeFileSync(join(home, 'tree', name), bytes)
    }
    const tar = ['-C', join(home, 'tree'), '--format=ustar', '-czf', bundle, '.']
    execFileSync('tar', tar)
  }
  make(home, `BUNDLE=${bundle}`, join(home, 'agent'))
  return join(home, 'agent')
}

/** libbpf and the kernel load the program only with privileges, and only on some machines. */
const FOUND = /loaded with BTF from the bundle|bundle: it does not load/
const NOT_FOUND = /bundle: there is none/
const fromBundle = ['--from', 'bundle', '--seconds', '1', '--events', '0', object]

t.test('the agent finds this kernel among bundle members of any size', async (t) => {
  const { distro, version, arch } = thisKernel()
  const btf = readFileSync(kernel)
  const own = `${distro}/${version}/${arch}/${release()}.btf`
  const agent = agentWith(t, {
    'a/1/x86_64/0.btf': Buffer.alloc(0),
    'a/1/x86_64/1.btf': Buffer.alloc(511),
    'a/1/x86_64/2.btf': Buffer.alloc(512),
    'a/1/x86_64/3.btf': Buffer.alloc(100_000, 'x'),
    [own]: btf,
    [`${own}.btf`]: Buffer.alloc(513),
    'z/1/x86_64/0.btf': Buffer.alloc(1),
  })
  t.match((await run(agent, ...fromBundle)).stderr, FOUND)
  const other = agentWith(t, { [`${own}.btf`]: btf, [own.replace('.btf', '')]: btf })
  t.match(await run(other, ...fromBundle), { status: 1, stderr: NOT_FOUND })
  t.match(
    await run(join(out, 'agent'), ...fromBundle),
    { status: 1, stderr: NOT_FOUND },
    'no bundle',
  )
})

t.test('the agent never crashes on a damaged bundle', async (t) => {
  const { distro, version, arch } = thisKernel()
  const tree = t.testdir({})
  const member = join(tree, distro, version, arch, `${release()}.btf`)
  mkdirSync(dirname(member), { recursive: true })
  copyFileSync(kernel, member)
  const tar = execFileSync('tar', ['-C', tree, '--format=ustar', '-cf', '-', '.'])
  const whole = gzipSync(tar)
  const at = tar.indexOf(`${release()}.btf\0`)
  const header = at - (at % 512)
  const size = Buffer.from(tar)
  size.write('77777777777\0', header + 124, 'latin1')
  for (const damaged of [
    whole.subarray(0, whole.length / 2),
    whole.subarray(0, 5),
    Buffer.from('no gzip at all'),
    gzipSync(size),
    gzipSync(tar.subarray(0, header + 100)),
    gzipSync(Buffer.alloc(5000, 'x')),
  ]) {
    t.match(await run(agentWith(t, damaged), ...fromBundle), { status: 1, stderr: NOT_FOUND })
  }
})

t.test(
  'the agent ends a fetch script that takes too long, and the script can clean up',
  async (t) => {
    const home = t.testdir({})
    const script = join(home, 'btf-fetch')
    writeFileSync(
      script,
      `#!/bin/sh\nsleep 1000 & echo $! >${home}/pid; trap 'rm ${home}/pid' EXIT; trap 'exit 1' TERM; wait\n`,
      { mode: 0o755 },
    )
    const service = ['--from', 'service', '--server', 'http://127.0.0.1:1', '--patience', '1']
    const outcome = await run(join(out, 'agent'), ...service, '--fetch', script, object)
    t.match(outcome, { status: 1, stderr: /service: there is none: Connection timed out/ })
    t.throws(() => readFileSync(join(home, 'pid')), 'the trap of the script removed its file')
  },
)

t.test('the agent passes the server, the file with the token and the cache on', async (t) => {
  const home = t.testdir({})
  const script = join(home, 'btf-fetch')
  writeFileSync(script, `#!/bin/sh\necho "$@" >>${home}/arguments; exit 1\n`, { mode: 0o755 })
  const options = ['--server', 'http://127.0.0.1:1', '--token-file', '/token', '--cache', '/cache']
  await run(join(out, 'agent'), '--from', 'cache,service', ...options, '--fetch', script, object)
  t.equal(
    readFileSync(join(home, 'arguments'), 'utf8'),
    `--offline --token-file /token --cache /cache --quiet\n${options.join(' ')}\n`,
  )
})

t.test('the agent with --quiet prints only the reason, and wrong usage exits with 2', async (t) => {
  const agent = join(out, 'agent')
  const quiet = await run(agent, '--quiet', '--from', 'bundle,service', object)
  t.match(quiet, { status: 1, stderr: /^agent: no source of BTF for .* makes the program load\n$/ })
  for (const wrong of [[], ['--from', 'nowhere', object], ['--events', 'x', object], ['--unknown']])
    t.equal((await run(agent, ...wrong)).status, 2, wrong.join(' '))
})

const mayLoad =
  (await run(join(out, 'agent'), '--from', 'kernel', '--events', '0', '--seconds', '1', object))
    .status === 0
t.test(
  'the agent prefers the BTF of the running kernel',
  mayLoad ? {} : { skip: 'this kernel has no BTF, or does not allow loading' },
  async (t) => {
    const { stderr } = await run(join(out, 'agent'), '--events', '0', '--seconds', '1', object)
    t.match(stderr, /loaded with the kernel's own BTF\nagent: attached/)
  },
)

t.test('recipes: bpftool accepts our BTF', async (t) => {
  const small = join(out, 'small.btf')
  execFileSync('bpftool', ['gen', 'min_core_btf', kernel, small, object])
  const text = execFileSync('bpftool', ['btf', 'dump', 'file', small], { encoding: 'utf8' })
  t.match(text, /STRUCT 'task_struct'.*real_parent/s)
  const header = execFileSync('bpftool', ['btf', 'dump', 'file', kernel, 'format', 'c'])
  t.match(header.toString(), /struct task_struct \{/)
})

t.test('recipes: bpftrace accepts our BTF', async (t) => {
  const env = { ...process.env, BPFTRACE_BTF: kernel }
  const listed = execFileSync('bpftrace', ['-lv', 'struct task_struct'], { env, encoding: 'utf8' })
  t.match(listed, /struct task_struct \{\n\tunsigned int __state;.*real_parent;/s)
})

const asRoot =
  process.getuid?.() === 0 ? {} : { skip: 'compiling for tracepoints needs tracefs, and that root' }
t.test('recipes: exec.bt compiles for the kernel of our BTF', asRoot, async (t) => {
  const env = { ...process.env, BPFTRACE_BTF: kernel }
  const compile = `mount -t tracefs tracefs /sys/kernel/tracing; bpftrace -d ${EXAMPLE}/exec.bt`
  const code = execFileSync('unshare', ['--mount', 'sh', '-c', compile], { env, encoding: 'utf8' })
  const btf = parseBtf(readFileSync(kernel))
  const task = btf.type(btf.find('task_struct', 'STRUCT')!) as StructType
  const offsets = ['tgid', 'comm', 'real_parent', 'tgid'].map((name) => {
    const member = task.members.find((other) => other.name === name)!
    return memberBits(btf, task, member).offset / 8
  })
  t.same(
    [...code.matchAll(/add i64 %\S+, (\d+)$/gm)].map(([, offset]) => Number(offset)),
    offsets,
  )
})

t.test('shellcheck accepts the scripts as POSIX sh', async (t) => {
  const scripts = ['btf-fetch', 'btf-from-headers', 'layout'].map((name) => join(EXAMPLE, name))
  t.match(await run('shellcheck', '--shell=sh', '--severity=warning', ...scripts), { status: 0 })
})

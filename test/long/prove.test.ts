// btfmill prove with a kernel of Debian: an object that loads, one with programs that the verifier refuses, the user's own
// loader, and a guest that does not end.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { fetchImage } from '../../generator/prove/image.ts'
import { findDebianPackages } from '../../generator/prove/package.ts'
import { openStore, putRecord } from '../../storage/index.ts'
import { COMMAND } from '../e2e/btfmill.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { btfOf, recordOf } from '../helpers/test-service.ts'

const online =
  process.env.BTFMILL_OFFLINE === '1'
    ? { skip: 'BTFMILL_OFFLINE=1: needs the mirror of a distribution' }
    : {}
const IMAGE = /^linux-image-(6\.1\.0-\d+-cloud-amd64)-unsigned$/
/** a kernel without BTF */
const IMAGE_686 = /^linux-image-(6\.1\.0-\d+-686-pae)-unsigned$/
const SECONDS = 300

const object = (name: string) => coreObjects('el').get(name)!
const directory = t.testdir()
const url = `file:${join(directory, 'store')}`
const vmlinuz = join(directory, 'vmlinuz')
const temporary = join(directory, 'tmp')
mkdirSync(temporary)

const start = (...args: string[]) =>
  spawn(COMMAND[0], [COMMAND[1], 'prove', ...args], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: SECONDS * 1000,
  })

async function prove(...args: string[]) {
  const child = start(...args)
  const [[status], stdout, stderr] = await Promise.all([
    once(child, 'close'),
    text(child.stdout),
    text(child.stderr),
  ])
  return { status, stdout, stderr }
}

/** Compiles a loader of one function and returns its path. */
function loaderOf(name: string, body: string): string {
  const [source, path] = [join(directory, `${name}.c`), join(directory, name)]
  writeFileSync(
    source,
    `#include <stdio.h>\n#include <unistd.h>\nint main(int c, char **v) { ${body} }\n`,
  )
  execFileSync('cc', ['-o', path, source])
  return path
}

const isRunning = (part: string): boolean =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .some((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(part)
      } catch {
        return false
      }
    })

t.before(async () => {
  if (online.skip) return
  const [pkg] = await findDebianPackages({ distro: 'debian', version: '12', arch: 'x86_64' }, (n) =>
    IMAGE.test(n),
  )
  const [, release = ''] = IMAGE.exec(pkg!.name)!
  const { package: from } = recordOf({})
  const kernel = { distro: 'debian', version: '12', arch: 'x86_64', release }
  const record = recordOf(kernel, { package: { ...from, version: pkg!.version } })
  const store = await openStore(url)
  await putRecord(store, record)
  const lost = recordOf({ ...kernel, release: '6.1.0-0-cloud-amd64' }, { package: from })
  await putRecord(store, lost)
  await fetchImage(record, directory, { store })
})

t.test(
  'prove takes the image of a record and prints the verdict on each program',
  online,
  async (t) => {
    const objects = [object('reachability'), object('task')]
    const kernel = '6.1.0-[1-9]*-cloud-amd64'
    const { status, stdout, stderr } = await prove(
      ...[...objects, '--store', url, '--kernel', kernel, '--attach', '--json'],
    )
    t.equal(status, 1, stderr)
    const [mixed, good] = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    t.match(mixed, { release: /^6\.1\.0-\d+-cloud-amd64$/, ownBtf: true, status: 1, error: -22 })
    t.ok(mixed.programs.length > 10)
    for (const { name, error, log } of mixed.programs) {
      if (name.startsWith('loads_')) t.equal(error, 0, name)
      if (!name.startsWith('refused_')) continue
      t.equal(error, -22, name)
      // this kernel has no exceptions, and refuses it before it reads the instructions
      if (name === 'refused_exception_callback') continue
      t.match(
        log.join('\n'),
        /<invalid CO-RE relocation>[\s\S]*no_such_member[\s\S]*processed \d+ insns/,
      )
    }
    const [walk] = good.programs
    t.match(good, { status: 0, error: 0 })
    t.match(walk, { name: 'walk', error: 0, attachError: 0 })
    t.same(readdirSync(temporary), [], 'no files stay')
  },
)

t.test('a kernel without BTF gets that of the store', online, async (t) => {
  const store = await openStore(url)
  const at = { distro: 'debian', version: '12', arch: 'i686' }
  const [pkg] = await findDebianPackages(at, (name) => IMAGE_686.test(name))
  const [, release = ''] = IMAGE_686.exec(pkg!.name)!
  const { package: from } = recordOf({})
  const btf = await btfOf(store, readFileSync(littleKernels().get('i686')!))
  const record = recordOf({ ...at, release }, { package: { ...from, version: pkg!.version }, btf })
  await putRecord(store, record)
  const { status, stdout, stderr } = await prove(
    ...[object('task'), '--store', url, '--kernel', release],
  )
  t.equal(status, 0, `${stdout}${stderr}`)
  t.match(stdout, `Linux ${release}, without BTF of its own\ntask.el.o loads `)
})

t.test(
  'prove --size-maps sizes maps as loaders do, and --cache keeps what it downloads',
  online,
  async (t) => {
    const [source, path] = [join(directory, 'sizeless.c'), join(directory, 'sizeless.o')]
    writeFileSync(
      source,
      `struct {
  int (*type)[1];
  unsigned *key;
  unsigned long long *value;
} counts __attribute__((section(".maps"), used));
__attribute__((section("socket"), used)) int program(void *context) { return 0; }
`,
    )
    execFileSync('clang', ['-g', '-O2', '-target', 'bpf', '-c', source, '-o', path])
    const cache = join(directory, 'cache')
    const args = [path, '--store', url, '--kernel', '6.1.0-[1-9]*-cloud-amd64', '--cache', cache]
    const plain = await prove(...args)
    t.equal(plain.status, 1, plain.stderr)
    t.match(plain.stdout, /map 'counts': failed to create/)
    const offline = ['--mirror', 'http://127.0.0.1:9']
    const sized = await prove(...args, '--size-maps', ...offline)
    t.equal(sized.status, 0, `${sized.stdout}${sized.stderr}`)
    t.match(sized.stdout, /^sizeless\.o loads /m)
  },
)

t.test("prove runs the user's own loader and ends with its status", online, async (t) => {
  const body = 'printf("loader of %s", v[1]); return access(v[1], R_OK) ? 1 : 42;'
  const loader = loaderOf('loader', body)
  const { status, stdout, stderr } = await prove(
    ...[object('task'), '--kernel', vmlinuz, '--command', loader],
  )
  t.equal(status, 42, stderr)
  t.match(
    stdout,
    /^Linux 6\.1\.\S+, with BTF of its own\ntask\.el\.o: exit status 42\n {2}loader of /,
  )
})

t.test('prove ends a guest at its time limit, and says so', online, async (t) => {
  const loader = loaderOf('forever', 'for (;;) pause();')
  const late = await prove(
    ...[object('task'), '--kernel', vmlinuz, '--command', loader, '--timeout', '2'],
  )
  t.equal(late.status, 1)
  t.match(late.stderr, /^btfmill: guest_timeout: the guest did not end within 2 s/m)
  t.same(readdirSync(temporary), [])
})

t.test('SIGTERM ends QEMU and leaves no files', online, async (t) => {
  const loader = loaderOf('forever', 'for (;;) pause();')
  const child = start(object('task'), '--kernel', vmlinuz, '--command', loader)
  for await (const line of createInterface({ input: child.stderr }))
    if (line.startsWith('booting')) break
  while (!isRunning(`file:${temporary}`)) await new Promise((done) => setTimeout(done, 50))
  child.kill('SIGTERM')
  const [status] = await once(child, 'close')
  t.equal(status, 1)
  t.notOk(isRunning(`file:${temporary}`), 'QEMU has ended')
  t.same(readdirSync(temporary), [])
})

t.test('prove says that no source has the image of a kernel', online, async (t) => {
  const kernel = 'debian/12/x86_64/6.1.0-0-cloud-amd64'
  const { status, stderr } = await prove(object('task'), '--store', url, '--kernel', kernel)
  t.equal(status, 1)
  t.match(stderr, /^btfmill: no_image: .*6\.1\.0-0-cloud-amd64 .*--source names opt-in sources/m)
})

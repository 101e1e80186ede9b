// What real machines say of themselves leads to the right kernel. fixtures/machines.txt has the os-release of over a hundred
// machines: distributions, derivatives, containers and WSL. One service holds the kernels of all of them; each has BTF of its
// own. Every machine asks through the client library, and through the script btf-fetch.
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { fetchBtf, thisKernel } from '../../../service/client/client.ts'
import { nameOf } from '../../../service/kernel/name.ts'
import { canonicalArch, mapConcurrent } from '../../../storage/index.ts'
import { craft, info } from '../../helpers/craft.ts'
import { btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'

const TABLE = join(import.meta.dirname, '../../fixtures/machines.txt')
const SCRIPT = join(import.meta.dirname, '../../../bpf/example/btf-fetch')
const UNAME_VERSION = '#1 SMP PREEMPT_DYNAMIC'

interface TestMachine {
  title: string
  arch: string
  release: string
  /** `uname -v`; the kernel's record has it, too, if the table has it */
  version: string | undefined
  buildId: string | undefined
  /** DISTRO/VERSION/ARCH/RELEASE of the kernel, and how it is found */
  kernel: string
  by: string
  osRelease: string
}

function parseTable(text: string): TestMachine[] {
  const [, ...blocks] = text.split(/^== /m)
  return blocks.map((block) => {
    const [title = '', ...lines] = block.trimEnd().split('\n')
    const fieldOf = (name: string) =>
      lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
    const [arch, release] = [fieldOf('uname -m')!, fieldOf('uname -r')!]
    const [found, by] = fieldOf('finds')!.split(' by ') as [string, string]
    return {
      title,
      arch,
      release,
      version: fieldOf('uname -v'),
      buildId: fieldOf('build-id'),
      kernel: `${found}/${canonicalArch(arch)}/${release}`,
      by,
      osRelease: lines.filter((line) => /^[A-Z_]+=/.test(line)).join('\n'),
    }
  })
}

const machines = parseTable(readFileSync(TABLE, 'utf8'))
const kernels = [...new Set(machines.map(({ kernel }) => kernel))]
/** BTF with one type, which is named after the kernel. */
const btfNamed = (kernel: string): Buffer => craft([1, info(1), 4, 32], `\0${kernel}\0`)

const { url } = await startTestService(t, (store) =>
  Promise.all(
    kernels.map(async (kernel) => {
      const [distro, version, arch, release] = kernel.split('/') as [string, string, string, string]
      const same = machines.filter((machine) => machine.kernel === kernel)
      const unameVersion = same.find(({ version }) => version)?.version
      const buildId = same.find(({ buildId }) => buildId)?.buildId
      const identity = { ...(unameVersion && { unameVersion }), ...(buildId && { buildId }) }
      const named = { distro, version, arch, release }
      return recordOf({ ...named, ...identity }, { btf: await btfOf(store, btfNamed(kernel)) })
    }),
  ),
)

/** Writes the files of a machine that tell of it, and a `uname` that prints what the table has. */
function install(
  { osRelease, arch, release, version, buildId }: TestMachine,
  home: string,
): string {
  mkdirSync(join(home, 'etc'), { recursive: true })
  mkdirSync(join(home, 'bin'))
  mkdirSync(join(home, 'sys/kernel'), { recursive: true })
  if (osRelease !== '') writeFileSync(join(home, 'etc/os-release'), `${osRelease}\n`)
  const note = `040000001400000003000000474e5500${buildId}`
  if (buildId) writeFileSync(join(home, 'sys/kernel/notes'), Buffer.from(note, 'hex'))
  const printed = { m: arch, r: release, v: version ?? UNAME_VERSION }
  const cases = Object.entries(printed).map(([flag, text]) => `-${flag}) echo '${text}' ;;`)
  const uname = `#!/bin/sh\ncase $1 in ${cases.join(' ')} *) exit 1 ;; esac\n`
  writeFileSync(join(home, 'bin/uname'), uname, { mode: 0o755 })
  return home
}

const homes = t.testdir({})
machines.forEach((machine, i) => {
  install(machine, join(homes, String(i)))
})

t.test('the table has over sixty distinct os-release files and each rule once', async (t) => {
  t.ok(new Set(machines.map(({ osRelease }) => osRelease)).size >= 60)
  t.same([...new Set(machines.map(({ by }) => by))].sort(), [
    'build-id',
    'name',
    'parent',
    'release',
  ])
})

t.test('every machine of the table gets the BTF of its kernel through the client', async (t) => {
  let right = 0
  for (const [i, machine] of machines.entries()) {
    const { arch, release, version = UNAME_VERSION, title, kernel, by } = machine
    const told = thisKernel(join(homes, String(i)))
    const fetched = await fetchBtf({
      server: url,
      kernel: { ...told, arch: canonicalArch(arch), release, unameVersion: version },
      cache: join(homes, String(i), 'client'),
      attempts: 1,
    }).catch((error) => ({ path: undefined, found: String(error) }))
    const [distro, stored, ...rest] = kernel.split('/') as [string, string, string, string]
    const name = nameOf({ distro, version: stored, arch: rest[0], release: rest[1] })
    t.same(fetched.found, { name, by }, title)
    right += Number(fetched.path && readFileSync(fetched.path).equals(btfNamed(kernel)))
  }
  t.equal(right, machines.length)
})

t.test('every machine of the table gets the BTF of its kernel through btf-fetch', async (t) => {
  const outcomes = await mapConcurrent(machines.entries(), 4, async ([i, { title, kernel }]) => {
    const home = join(homes, String(i))
    const env = {
      PATH: `${join(home, 'bin')}:/usr/bin:/bin`,
      BTFMILL_ROOT: home,
      BTFMILL_CACHE: join(home, 'cache'),
    }
    const ran = await promisify(execFile)('sh', [SCRIPT, '--server', url], { env }).catch(
      ({ stdout, stderr }) => ({ stdout, stderr }),
    )
    const path = ran.stdout.trimEnd()
    const isRight = path !== '' && readFileSync(path).equals(btfNamed(kernel))
    t.ok(isRight, `${title}: ${ran.stderr}`)
    return isRight
  })
  t.equal(outcomes.filter(Boolean).length, machines.length)
})

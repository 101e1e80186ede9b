// btfmill rm, prune and stats.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  addUsage,
  Catalog,
  kernelPrefix,
  monthOf,
  openStore,
  putRecord,
} from '../../../storage/index.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { recordOf } from '../../helpers/test-service.ts'

const directory = mkdtempSync(join(tmpdir(), 'prune-'))
t.teardown(() => rmSync(directory, { recursive: true }))

async function fourKernels(): Promise<{ url: string; releases: () => Promise<string[]> }> {
  const url = await storeOf(mkdtempSync(join(directory, 'store-')), [
    { machine: 'x86_64', release: '6.1.0-9-amd64' },
    { machine: 'i686', release: '6.1.0-10-amd64', arch: 'x86_64' },
    { machine: 'x86_64', release: '6.1.0-9-cloud-amd64' },
  ])
  const store = await openStore(url)
  await putRecord(store, recordOf({ release: '6.1.0-11-amd64' }))
  await Catalog.publish(store)
  const releases = async () =>
    [...(await Catalog.open(store)).list()].map(({ record }) => record.kernel.release).sort()
  return { url, releases }
}

const ALL = ['6.1.0-10-amd64', '6.1.0-11-amd64', '6.1.0-9-amd64', '6.1.0-9-cloud-amd64']

async function removes(t: Test, args: string[], left: string[], summary: RegExp): Promise<void> {
  const { url, releases } = await fourKernels()
  const dry = await run(...args, '--dry-run', '--store', url)
  t.match(dry, { status: 0, stderr: '' }, `${args.join(' ')} --dry-run`)
  t.match(dry.stdout, /would be removed; `btfmill gc` would free /)
  t.same(await releases(), ALL, 'removes nothing')
  const { status, stdout } = await run(...args, '--store', url)
  t.equal(status, 0)
  t.match(stdout, summary)
  t.same(await releases(), left)
}

t.test('rm removes the kernels that are named, and those that match filters', async (t) => {
  const one = /^debian\/12\/x86_64\/6\.1\.0-10-amd64\n1 kernel removed; .* 1 blob, \d+ bytes/
  const left = ALL.filter((release) => release !== '6.1.0-10-amd64')
  await removes(t, ['rm', '6.1.0-10-amd64'], left, one)
  await removes(t, ['rm', 'debian/12/x86_64/6.1.0-10-amd64'], left, one)
  await removes(t, ['rm', '--release', '*-9-*'], ALL.slice(0, 2), /2 kernels removed/)
})

t.test('prune keeps the newest releases of each series', async (t) => {
  const left = ['6.1.0-11-amd64', '6.1.0-9-cloud-amd64']
  await removes(t, ['prune', '--newest', '1'], left, /2 kernels removed/)
})

t.test('prune --unused keeps what clients got in the last months', async (t) => {
  const { url, releases } = await fourKernels()
  const store = await openStore(url)
  const prune = (...args: string[]) => run('prune', '--unused', '3', ...args, '--store', url)
  const unknown = {
    status: 1,
    stdout: '',
    stderr: /cannot tell which kernels clients got since .*: no service has counted yet/,
  }
  t.match(await prune(), unknown)
  const used = new Set([kernelPrefix(recordOf({ release: '6.1.0-9-amd64' }).kernel)])
  const month = monthOf(new Date())
  await addUsage(store, month, used)
  t.match(await prune(), { status: 1, stdout: '', stderr: `: counted since ${month}` })
  await addUsage(store, '2020-01', new Set())
  const makeAt = async (createdAt: string) => {
    for (const { record } of [...(await Catalog.open(store)).list()])
      await putRecord(store, { ...record, createdAt })
  }
  await makeAt(new Date().toISOString())
  t.match(await prune(), { status: 0, stdout: /^0 kernels removed/ }, 'all are new')
  await makeAt('2020-01-01T00:00:00Z')
  t.equal((await prune('--newest', '1', '--dry-run')).stdout.split('\n').length, 3)
  t.match(await prune(), { status: 0, stdout: /3 kernels removed/ })
  t.same(await releases(), ['6.1.0-9-amd64'])
})

t.test('rm and prune remove nothing unless told what, or if nothing has that name', async (t) => {
  const { url, releases } = await fourKernels()
  for (const [args, status, message] of [
    [['rm'], 2, /needs a kernel, or a filter/],
    [['prune'], 2, /needs --newest N, --unused MONTHS/],
    [['rm', '6.1.0-99-amd64'], 1, /"6\.1\.0-99-amd64" names no kernel/],
    [['rm', '--distro', 'debain'], 1, /did you mean debian/],
    [['rm', '*-9-*'], 1, /ambiguous: .* names 2 kernels/],
  ] as const)
    t.match(await run(...args, '--store', url), { status, stdout: '', stderr: message })
  t.same(await releases(), ALL)
})

t.test('stats counts kernels and bytes of each series and of all', async (t) => {
  const { url } = await fourKernels()
  const { status, stdout } = await run('stats', '--json', '--store', url)
  t.equal(status, 0)
  const { total, series } = JSON.parse(stdout)
  t.match(total, { kernels: 4, available: 3, embedded: 0, failed: 1 })
  t.match(series, [
    { distro: 'debian', version: '12', arch: 'x86_64', flavour: '-amd64', kernels: 3, failed: 1 },
    { flavour: '-cloud-amd64', kernels: 1, available: 1 },
  ])
  const sum = (key: 'btf' | 'stored') => series[0][key] + series[1][key]
  t.ok(total.btf < sum('btf'), 'what two series share counts once')
  t.ok(total.stored < sum('stored'))
  t.ok(total.stored < total.btf && total.stored > 0)
  const lines = (await run('stats', '--store', url)).stdout.trimEnd().split('\n')
  t.match(lines[0], /^DISTRO +VERSION +ARCH +FLAVOUR +KERNELS +AVAILABLE +EMBEDDED +FAILED +BTF MB/)
  t.match(lines[1], /^debian +12 +x86_64 +amd64 +3 +2 +0 +1 /)
  t.match(lines[3], /^all +4 +3 +0 +1 /)
})

// Unchanged clients of BTFHub, Datadog, OpenAnolis, btfhub-online and debuginfod get kernels that only an upstream has: another
// btfmill, or a server with the layout of each archive.
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import {
  Catalog,
  openStore,
  publishArchive,
  putRecord,
  readManifest,
  sha256Of,
  verifyStore,
} from '../../../storage/index.ts'
import { MANIFEST_KEY } from '../../../storage/manifest.ts'
import {
  archiveArchOf,
  type Catalogue,
  loadLikeDatadog,
  loadLikeLoongCollector,
  loadLikePtcpdump,
  loadLikeScripts,
  type Machine,
  temporaryDirectory,
  unameArchOf,
} from '../../helpers/agents.ts'
import { smallBtf } from '../../helpers/packs.ts'
import { startServer } from '../../helpers/test-server.ts'
import { ask, btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'
import { startEdge } from '../../helpers/upstreams.ts'
import { until } from '../../helpers/wait-until.ts'

const run = promisify(execFile)

/** Kernels, as machines name them, and the version under which archives have them. */
const KERNELS: readonly (readonly [Machine, archived: string])[] = [
  [{ id: 'anolis', versionId: '8.6', release: '4.19.91-26.an8.x86_64', goarch: 'amd64' }, '8'],
  [{ id: 'ubuntu', versionId: '20.04', release: '5.4.0-1001-aws', goarch: 'arm64' }, '20.04'],
  [{ id: 'ol', versionId: '7.9', release: '4.14.35-1.el7uek.x86_64', goarch: 'amd64' }, '7'],
]
const buildIdOf = ({ release }: Machine): string => sha256Of(release).slice(0, 40)
const rawOf = ({ goarch }: Machine): Buffer => smallBtf(goarch === 'amd64' ? 'x86_64' : 'aarch64')

/** The tree of btfhub-archive, packed by tar as BTFHub does it. Returns its directory. */
async function archiveTree(t: Test): Promise<string> {
  const root = temporaryDirectory(t)
  for (const [machine, version] of KERNELS) {
    const { id, release } = machine
    const directory = join(root, id, version, archiveArchOf(machine))
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `${release}.btf`), rawOf(machine))
    const names = [`${release}.btf.tar.xz`, `./${release}.btf`]
    await run('tar', ['cJf', ...names], { cwd: directory })
  }
  return root
}

const INDEX = '<html><head><title>Index of /coolbpf/btf/</title></head><body><h1>Index</h1></body>'

/** OpenAnolis' mirror: pages of directories, and files, some of which are ELF. */
async function openAnolisFiles(t: Test): Promise<Record<string, Buffer | string>> {
  const directory = temporaryDirectory(t)
  const found: Record<string, Buffer | string> = { '/coolbpf/btf/': INDEX }
  for (const [n, [machine]] of KERNELS.entries()) {
    const [raw, elf] = [join(directory, 'raw'), join(directory, 'elf')]
    writeFileSync(raw, rawOf(machine))
    const target = machine.goarch === 'amd64' ? 'elf64-x86-64' : 'elf64-littleaarch64'
    const section = ['--rename-section', '.data=.BTF']
    await run('llvm-objcopy', ['-I', 'binary', '-O', target, ...section, raw, elf])
    const path = `/coolbpf/btf/${unameArchOf(machine)}/vmlinux-${machine.release}`
    found[path] = readFileSync(n % 2 === 0 ? elf : raw)
  }
  return found
}

const files =
  (found: (path: string) => Buffer | string | undefined): RequestListener =>
  ({ url }, response) => {
    const file = found(decodeURIComponent(url!))
    response.writeHead(file === undefined ? 404 : 200).end(file ?? '<html>404 Not Found</html>')
  }

function fileBelow(root: string, path: string): Buffer | undefined {
  try {
    return readFileSync(join(root, path))
  } catch {
    return undefined
  }
}

/** A btfmill with all kernels. */
async function startBtfmill(t: Test): Promise<string> {
  const store = await openStore('memory:')
  for (const [machine, version] of KERNELS) {
    const kernel = {
      distro: machine.id,
      version,
      arch: unameArchOf(machine),
      release: machine.release,
    }
    const btf = await btfOf(store, rawOf(machine))
    await putRecord(store, recordOf({ ...kernel, buildId: buildIdOf(machine) }, { btf }))
  }
  return (await startTestService(t, undefined, { store })).url
}

const tree = await archiveTree(t)

/** Datadog's catalogue of the tree. */
function datadogCatalogue(): Catalogue {
  const catalogue: Catalogue = {}
  for (const [machine, version] of KERNELS) {
    const arch = archiveArchOf(machine)
    const archive = join(tree, machine.id, version, arch, `${machine.release}.btf.tar.xz`)
    const releases = { [machine.release]: { sha256: sha256Of(readFileSync(archive)) } }
    catalogue[arch] = { ...catalogue[arch], [machine.id]: { [version]: releases } }
  }
  return catalogue
}

const openAnolis = await openAnolisFiles(t)
const catalogue = datadogCatalogue()

/** Starts each kind of upstream, and gives its address. */
const UPSTREAMS: Record<string, (t: Test) => Promise<string>> = {
  btfmill: startBtfmill,
  btfhub: async (t) =>
    (
      await startServer(
        t,
        files((path) => fileBelow(tree, path)),
      )
    ).url,
  datadog: async (t) => {
    const found = (path: string) =>
      path === '/btfs/catalog.json'
        ? JSON.stringify(catalogue)
        : path.startsWith('/btfs/')
          ? fileBelow(tree, path.slice('/btfs'.length))
          : undefined
    return (await startServer(t, files(found))).url
  },
  openanolis: async (t) =>
    (
      await startServer(
        t,
        files((path) => openAnolis[path]),
      )
    ).url,
}

type Client = (t: Test, server: string, machine: Machine) => Promise<Buffer>

const CLIENTS: Record<string, Client> = {
  'a script with wget and tar': loadLikeScripts,
  'ptcpdump or kyanos': loadLikePtcpdump,
  "LoongCollector, from SysOM's bucket": (t, server, machine) =>
    loadLikeLoongCollector(t, server, machine, 'home/hive/btf'),
  "LoongCollector, from OpenAnolis' mirror": (t, server, machine) =>
    loadLikeLoongCollector(t, server, machine, 'coolbpf/btf'),
  'a client of btfhub-online': async (t, server, { id, versionId, release, goarch }) => {
    const query = new URLSearchParams({
      distribution: id,
      distribution_version: versionId,
      kernel_version: release,
      arch: goarch,
    })
    const directory = temporaryDirectory(t)
    const archive = join(directory, 'archive')
    await run('curl', ['-sf', `${server}/api/v1/download?${query}`, '-o', archive])
    await run('tar', ['xf', archive], { cwd: directory })
    return readFileSync(join(directory, `${release}.btf`))
  },
}

/** What an upstream cannot answer: the address does not name the distribution, by which the tree is ordered. */
const isImpossible = (kind: string, client: string): boolean =>
  kind === 'btfhub' && client.startsWith('LoongCollector')

for (const [kind, start] of Object.entries(UPSTREAMS))
  t.test(`clients get what only an upstream has: ${kind}`, async (t) => {
    const upstream = await start(t)
    for (const [client, load] of Object.entries(CLIENTS)) {
      const edge = await startEdge(t, [upstream])
      for (const [machine] of KERNELS) {
        const loading = load(t, edge.url, machine)
        if (isImpossible(kind, client)) await t.rejects(loading, { code: 22 }, client)
        else t.ok((await loading).equals(rawOf(machine)), `${client}: ${machine.release}`)
      }
      t.equal(
        [...(await Catalog.open(edge.store)).list()].length,
        isImpossible(kind, client) ? 0 : 3,
      )
    }
  })

t.test("Datadog's agent gets the bytes of Datadog's catalogue through the service", async (t) => {
  const upstream = await UPSTREAMS.datadog!(t)
  const edge = await startEdge(t, [upstream])
  const load = (known: Catalogue) =>
    Promise.all(
      KERNELS.map(async ([machine, versionId]) => {
        const loaded = await loadLikeDatadog(t, edge.url, { ...machine, versionId }, known)
        return loaded.equals(rawOf(machine))
      }),
    )
  t.same(await load(catalogue), [true, true, true])
  const own = () => ask(`${edge.url}/btfs/catalog.json`)
  const { json } = await until(own, ({ headers }) => headers['btfmill-missing'] === '0')
  t.same(json, catalogue, "the service's own catalogue has the same digests")
  await until(
    () => Array.fromAsync(verifyStore(edge.store)),
    (found) => found.length === 0,
  )
  const { files } = (await readManifest(edge.store))!
  await edge.store.delete(MANIFEST_KEY)
  await publishArchive(edge.store, await Catalog.open(edge.store))
  t.same(await readManifest(edge.store), { schema: 1, files }, 'the archives are not packed again')
  const edgeWithout = await startTestService(t, undefined, { store: edge.store })
  const [[machine, versionId]] = KERNELS as [(typeof KERNELS)[number]]
  await loadLikeDatadog(t, edgeWithout.url, { ...machine, versionId }, catalogue)
})

t.test('debuginfod-find gets BTF by a build-id that only an upstream has', async (t) => {
  const edge = await startEdge(t, [await startBtfmill(t)])
  const cache = temporaryDirectory(t)
  const find = async (buildId: string) => {
    const env = { ...process.env, DEBUGINFOD_URLS: edge.url, DEBUGINFOD_CACHE_PATH: cache }
    const { stdout } = await run('debuginfod-find', ['section', buildId, '.BTF'], { env })
    return readFileSync(stdout.trimEnd())
  }
  for (const [machine] of KERNELS)
    t.ok((await find(buildIdOf(machine))).equals(rawOf(machine)), machine.release)
  await t.rejects(find('dd'.repeat(20)), /No such file/)
})

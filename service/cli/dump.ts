import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Btf, parseBtf, printHeader, printLayout, readBtf } from '../../bpf/index.ts'
import { Catalog, canonicalArch, decodeName, getBlob, openStore } from '../../storage/index.ts'
import { lookUp } from '../lookup.ts'
import type { CommonOptions } from './filter.ts'

/** `btfmill dump`. Returns the exit status. */
export async function run(
  what: string,
  { store, type }: CommonOptions & { type?: string },
): Promise<number> {
  const btf = await openBtf(what, store)
  if (type === undefined) {
    await pipeline(Readable.from(printHeader(btf)), process.stdout).catch(unlessClosed)
    return 0
  }
  const name = type.replace(/^(struct|union) /, '')
  const id = btf.find(name, 'STRUCT') ?? btf.find(name, 'UNION') ?? btf.find(name)
  if (id === undefined) {
    console.error(`btfmill: there is no type ${name} in ${what}`)
    return 1
  }
  process.stdout.write(`${printLayout(btf, id)}\n`)
  return 0
}

/** A file, else a kernel in the store. */
async function openBtf(what: string, storeUrl: string): Promise<Btf> {
  try {
    return readBtf(await readFile(what))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const [distro, version, arch, release, ...rest] = what.split('/').map(decodeName)
    if (!distro || !version || !arch || !release || rest.length > 0) throw error
    const store = await openStore(storeUrl)
    const kernel = { distro, version, arch: canonicalArch(arch), release }
    const { btf } = await lookUp(new Catalog(store), kernel)
    return parseBtf(await getBlob(store, btf.sha256))
  }
}

/** A reader that has seen enough (`| head`) is no failure. */
function unlessClosed(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

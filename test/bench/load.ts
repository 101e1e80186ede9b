/* Mixed load: requests of agents, people and programs, in an order that follows from a seed. */
import { Pool } from 'undici'
import { Random } from '../fuzz/random.ts'

const CONNECTIONS = 32

interface Asked {
  path: string
  headers?: Record<string, string>
  /** BPF object to upload */
  object?: Uint8Array
  status: number
}

/** A kind of request; the random number chooses kernel and object. */
type Kind = (n: number) => Asked

/** Returns the kinds of requests, each as often as its share in percent. `kernels` are releases of Debian 12 on x86_64. */
function kindsOf(kernels: readonly string[], objects: readonly Uint8Array[]): readonly Kind[] {
  const base = 'debian/12/x86_64'
  const name = (n: number) => `${base}/${kernels[n % kernels.length]}`
  const get =
    (encoding: string): Kind =>
    (n) => ({
      ...{ path: `/v1/btf/${name(n)}`, headers: { 'accept-encoding': encoding }, status: 200 },
    })
  const post =
    (verb: string): Kind =>
    (n) => ({
      path: `/v1/${verb}?kernel=${name(n)}`,
      object: objects[(n >> 8) % objects.length]!,
      status: 200,
    })
  const shares: readonly (readonly [number, Kind])[] = [
    [35, get('zstd')],
    [5, get('gzip')],
    [5, get('identity')],
    [15, (n) => ({ path: `/v1/btf/${name(n)}`, headers: { 'if-none-match': '*' }, status: 304 })],
    [10, (n) => ({ path: `/v1/btf/${name(n)}/sha256`, status: 200 })],
    [2, (n) => ({ path: `/v1/btf/${name(n)}?dialect=libbpf-0.5`, status: 200 })],
    [10, (n) => ({ path: `/v1/btf/${base}/none-${n}`, status: 404 })],
    [5, () => ({ path: '/v1/kernels?limit=50', status: 200 })],
    [3, () => ({ path: '/v1/misses', status: 200 })],
    [5, post('minimize')],
    [5, post('check')],
  ]
  return shares.flatMap(([share, kind]) => Array.from({ length: share }, () => kind))
}

export class Load {
  readonly #pool: Pool
  readonly #random: Random
  readonly #kinds: readonly Kind[]

  constructor(
    url: string,
    kernels: readonly string[],
    objects: readonly Uint8Array[],
    seed: number,
  ) {
    this.#pool = new Pool(url, { connections: CONNECTIONS })
    this.#random = new Random(seed)
    this.#kinds = kindsOf(kernels, objects)
  }

  /** Sends `requests` requests. Throws if a response has another status than expected. */
  async run(requests: number): Promise<void> {
    let left = requests
    const client = async () => {
      while (left-- > 0) await this.#ask(this.#next())
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, client))
  }

  async close(): Promise<void> {
    await this.#pool.close()
  }

  #next(): Asked {
    return this.#random.pick(this.#kinds)(this.#random.below(1 << 16))
  }

  async #ask({ path, headers = {}, object, status }: Asked): Promise<void> {
    const request = object ? { method: 'POST' as const, ...formOf(object) } : { headers }
    const { statusCode, body } = await this.#pool.request({ method: 'GET', path, ...request })
    await body.dump({ limit: Number.POSITIVE_INFINITY })
    if (statusCode !== status) throw new Error(`${path}: ${statusCode}`)
  }
}

function formOf(object: Uint8Array) {
  const head = '--x\r\ncontent-disposition: form-data; name="object"; filename="o"\r\n\r\n'
  const body = Buffer.concat([Buffer.from(head), object, Buffer.from('\r\n--x--\r\n')])
  return { headers: { 'content-type': 'multipart/form-data; boundary=x' }, body }
}

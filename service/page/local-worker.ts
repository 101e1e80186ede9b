/*
 * The worker of /check in the browser: it gets an object from its page and the address of a list of kernels, and posts how
 * far it is, then the result as HTML. Its page ends it to cancel. It only ever reads from the service.
 */
import { BtfError, openObject } from '../../bpf/index.ts'
import { CheckSummary, checkedPage } from './check-page.ts'
import { renderPart } from './helpers.ts'
import { checkLocally, type LocalKernel } from './local-check.ts'

/** What the page sends. */
interface LocalRequest {
  readonly file: File
  /** the address of the list of kernels */
  readonly kernels: string
}

/** What the page gets. */
type LocalMessage =
  | { readonly done: number; readonly total: number; readonly bytes: number }
  | { readonly html: string; readonly title: string; readonly lines: Blob }
  | { readonly error: string }

interface WorkerScope {
  onmessage: ((event: { readonly data: LocalRequest }) => void) | null
  postMessage(message: LocalMessage): void
}
const scope = globalThis as unknown as WorkerScope

/** How often a request is repeated that the service is too busy for, and the milliseconds between. */
const [TRIES, PAUSE] = [5, 2000]

let bytesRead = 0

/**
 * A redirect leads to the bucket of the store, which the policy of the page forbids. A range, here of all bytes, is sent
 * by the service itself.
 */
async function fetchHere(path: string): Promise<Response> {
  const response = await fetch(path, { redirect: 'manual' })
  if (response.type !== 'opaqueredirect') return response
  return await fetch(path, { redirect: 'error', headers: { range: 'bytes=0-' } })
}

/** Errors: `Error` for a status that is neither 200 nor 404. */
async function get(path: string): Promise<Uint8Array | undefined> {
  for (let n = 1; ; n++) {
    const response = await fetchHere(path)
    if (response.status === 404) return undefined
    if (response.ok) {
      const bytes = new Uint8Array(await response.arrayBuffer())
      bytesRead += bytes.length
      return bytes
    }
    const isBusy = response.status === 429 || response.status === 503
    if (!isBusy || n === TRIES) throw new Error(`GET ${path}: HTTP status ${response.status}`)
    const seconds = Number(response.headers.get('retry-after'))
    await new Promise((resolve) => setTimeout(resolve, seconds > 0 ? seconds * 1000 : PAUSE))
  }
}

async function digestOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  // only where the page came over TLS, or from this machine
  if (!globalThis.crypto?.subtle) return ''
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

async function check({ file, kernels: list }: LocalRequest): Promise<LocalMessage> {
  const { name } = file
  const bytes = new Uint8Array(await file.arrayBuffer())
  const object = openObject(bytes)
  const answer = await get(list)
  const kernels: LocalKernel[] = answer ? JSON.parse(new TextDecoder().decode(answer)) : []
  const progress = (done: number) =>
    scope.postMessage({ done, total: kernels.length, bytes: bytesRead })
  progress(0)
  const summary = new CheckSummary()
  const lines: string[] = []
  for await (const { verdict, line } of checkLocally({ name, object }, kernels, get)) {
    summary.add(verdict)
    lines.push(line)
    progress(lines.length)
  }
  const digest = await digestOf(bytes)
  const view = summary.view({ name, digest, size: bytes.length }, 0)
  const { template, title } = checkedPage(view)
  const { render } = await import(new URL('../../templates.js', import.meta.url).href)
  const html = renderPart(render, template, { ...view, isLocal: true }, '')
  return { html, title, lines: new Blob(lines, { type: 'application/x-ndjson' }) }
}

scope.onmessage = ({ data }) => {
  check(data).then(
    (result) => scope.postMessage(result),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error)
      const isObject = !(error instanceof BtfError)
      scope.postMessage({ error: isObject ? message : `This is not a BPF object: ${message}.` })
    },
  )
}

/*
 * Servers that answer like Launchpad (https://launchpad.net/+apidoc/devel.html) and snapshot.debian.org
 * (https://salsa.debian.org/snapshot-team/snapshot/blob/master/API), with files of a test.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { basename } from 'node:path'
import type { Test } from 'tap'
import { type Server, startServer } from './test-server.ts'

/** A published binary; fields that are not given have usual values. */
export interface Binary {
  name: string
  version: string
  /** path of its file, if it still exists */
  file?: string
  status?: string
  pocket?: string
  superseded?: string | null
  build?: string | null
}

export interface LaunchpadOptions {
  /** binaries per page */
  page?: number
  /** changes each response */
  edit?: (answer: string, url: URL) => string
}

const digest = (algorithm: string, path: string): string =>
  createHash(algorithm).update(readFileSync(path)).digest('hex')

const json = (response: ServerResponse, text: string): void => {
  response.writeHead(200, { 'content-type': 'application/json' }).end(text)
}

/** Serves the API and the files of an archive that has these binaries for focal and amd64. */
export async function startLaunchpad(
  t: Test,
  binaries: readonly Binary[],
  { page = 2, edit = (answer) => answer }: LaunchpadOptions = {},
): Promise<Server> {
  const server = await startServer(t, (request, response) => {
    const url = new URL(request.url!, server.url)
    const answer = (value: unknown) => json(response, edit(JSON.stringify(value), url))
    const [, number] =
      /^\/devel\/ubuntu\/\+archive\/primary\/\+binarypub\/(\d+)$/.exec(url.pathname) ?? []
    if (number !== undefined) return answer(filesOf(binaries[Number(number)]!))
    if (url.pathname.startsWith('/files/')) {
      const file = binaries.find((one) => one.file && basename(one.file) === basename(url.pathname))
      if (file) return void response.end(readFileSync(file.file!))
    }
    if (url.pathname === '/devel/ubuntu/+archive/primary') return answer(collection(url))
    response.writeHead(404).end()
  })
  const collection = (url: URL) => {
    const { searchParams: query } = url
    const series = `${server.url}/devel/ubuntu/focal/amd64`
    const found = binaries
      .map((binary, i) => entryOf(binary, i, series))
      .filter(({ binary_package_name: name }) => {
        const wanted = query.get('binary_name') ?? ''
        return query.get('exact_match') === 'true' ? name === wanted : name.includes(wanted)
      })
      .filter(() => query.get('distro_arch_series') === series)
    const start = Number(query.get('ws.start') ?? 0)
    const next = new URL(url)
    next.searchParams.set('ws.start', String(start + page))
    return {
      start,
      total_size_link: `${url}&ws.show=total_size`,
      ...(start + page < found.length && { next_collection_link: next.href }),
      entries: found.slice(start, start + page),
    }
  }
  const entryOf = (binary: Binary, i: number, series: string) => ({
    self_link: `${server.url}/devel/ubuntu/+archive/primary/+binarypub/${i}`,
    resource_type_link: `${server.url}/devel/#binary_package_publishing_history`,
    distro_arch_series_link: series,
    status: binary.status ?? 'Superseded',
    pocket: binary.pocket ?? 'Updates',
    date_superseded:
      binary.superseded === undefined ? '2023-12-19T21:59:37+00:00' : binary.superseded,
    binary_package_name: binary.name,
    binary_package_version: binary.version,
    build_link: binary.build === undefined ? `${server.url}/devel/+build/${i}` : binary.build,
    is_debug: true,
  })
  const filesOf = ({ file }: Binary) => {
    if (file === undefined) return []
    const [sha1, sha256] = [digest('sha1', file), digest('sha256', file)]
    const url = `${server.url}/files/${basename(file)}`
    return [{ url, size: readFileSync(file).length, sha1, sha256 }]
  }
  return server
}

/** A deb of a version of the source package. */
export interface SnapshotFile {
  version: string
  path: string
}

export interface SnapshotOptions {
  edit?: (answer: string, url: URL) => string
}

/** Serves the API and the files of the source package `linux`. */
export async function startSnapshot(
  t: Test,
  files: readonly SnapshotFile[],
  { edit = (answer) => answer }: SnapshotOptions = {},
): Promise<Server> {
  const pool = '/pool/main/l/linux'
  const seen = '20190513T205533Z'
  const filesOf = (files: readonly SnapshotFile[]) => {
    const where = { archive_name: 'debian', path: pool, first_seen: seen }
    const hashes = files.map((file) => digest('sha1', file.path))
    const info = files.map(({ path }, i) => {
      return [hashes[i], [{ name: basename(path), size: readFileSync(path).length, ...where }]]
    })
    const architectureOf = (path: string) => /_([^_]+)[.]deb$/.exec(path)![1]!
    const result = files.map(({ path }, i) => ({
      hash: hashes[i],
      architecture: architectureOf(path),
    }))
    return { result, fileinfo: Object.fromEntries(info) }
  }
  return await startServer(t, (request, response) => {
    const url = new URL(request.url!, 'http://localhost')
    const path = decodeURIComponent(url.pathname)
    const answer = (value: object) =>
      json(response, edit(JSON.stringify({ _comment: 'experimental', ...value }), url))
    if (path === '/mr/package/linux/') {
      const result = [...new Set(files.map(({ version }) => version))].map((version) => ({
        version,
      }))
      return answer({ package: 'linux', result })
    }
    const [, version] = /^\/mr\/package\/linux\/([^/]+)\/allfiles$/.exec(path) ?? []
    if (version !== undefined) {
      const ours = files.filter((file) => file.version === version)
      const { result: listed, fileinfo } = filesOf(ours)
      const binaries = listed.map((file) => ({ files: [file] }))
      const result = { source: [], binaries }
      const info = url.searchParams.get('fileinfo') === '1' && { fileinfo }
      return answer({ package: 'linux', version, result, ...info })
    }
    const binary = /^\/mr\/binary\/([^/]+)\/(?:([^/]+)\/binfiles)?$/.exec(path)
    if (binary) {
      const [, name, wanted] = binary
      const ours = files.filter((file) => basename(file.path).startsWith(`${name}_`))
      if (ours.length === 0) return void response.writeHead(404).end()
      const versionOf = (file: SnapshotFile) => basename(file.path).split('_')[1]!
      if (wanted === undefined) {
        const result = [...new Set(ours.map((file) => `${versionOf(file)} ${file.version}`))].map(
          (both) => {
            const [binary_version, version] = both.split(' ')
            return { name, binary_version, source: 'linux', version }
          },
        )
        return answer({ binary: name, result })
      }
      const these = ours.filter((file) => versionOf(file) === wanted)
      return answer({ binary: name, binary_version: wanted, ...filesOf(these) })
    }
    const file = files.find(
      (one) => path === `/archive/debian/${seen}${pool}/${basename(one.path)}`,
    )
    if (file) return void response.end(readFileSync(file.path))
    response.writeHead(404).end()
  })
}

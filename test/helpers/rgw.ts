/*
 * A real S3 server: Ceph's RADOS gateway with one monitor and one in-memory object store, on free ports of 127.0.0.1.
 * It has two users, the owner of the buckets and a stranger, and frees the memory of deleted objects at once. Debian's
 * version 16 applies `If-None-Match` and `If-Match` to PutObject, but not to the completion of a multipart upload.
 */
import { execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Test } from 'tap'

const run = promisify(execFile)

export interface Gateway {
  /** without a final slash */
  endpoint: string
  owner: Credentials
  stranger: Credentials
}

export interface Credentials {
  accessKeyId: string
  secretAccessKey: string
}

const OWNER = { accessKeyId: 'owner', secretAccessKey: 'secret-of-the-owner' }
const STRANGER = { accessKeyId: 'stranger', secretAccessKey: 'secret-of-the-stranger' }

/** Starts the server, which takes about 15 s. It stops after the test, or when this process dies. */
export async function startGateway(t: Test): Promise<Gateway> {
  const home = mkdtempSync(join(tmpdir(), 'btfmill-rgw-'))
  const stops: (() => Promise<void>)[] = []
  t.teardown(async () => {
    await Promise.all(stops.map((stop) => stop()))
    rmSync(home, { recursive: true })
  })
  const conf = join(home, 'ceph.conf')
  const daemon = (name: string, ...args: string[]) => stops.push(startDaemon(home, name, args))
  const [monitor, gateway] = await freePorts()
  const cluster = randomUUID()
  writeFileSync(conf, configuration(home, cluster, monitor, gateway))
  for (const name of ['mon', 'osd', 'rgw']) mkdirSync(join(home, name))

  const keyring = join(home, 'keyring')
  for (const [i, name] of ['mon.', 'client.admin', 'osd.0'].entries()) {
    const caps = ['mon', 'osd', 'mgr'].flatMap((kind) => ['--cap', kind, 'allow *'])
    const create = i === 0 ? ['--create-keyring'] : []
    await run('ceph-authtool', [keyring, ...create, '--gen-key', '--name', name, ...caps])
  }
  const map = join(home, 'monmap')
  const address = `[v2:127.0.0.1:${monitor}]`
  await run('monmaptool', ['--create', '--fsid', cluster, '--addv', 'a', address, map])
  await run('ceph-mon', ['-c', conf, '--mkfs', '-i', 'a', '--monmap', map, '--keyring', keyring])
  daemon('ceph-mon', '-i', 'a')
  const disk = randomUUID()
  await run('ceph', ['-c', conf, 'osd', 'new', disk], { timeout: 60_000 })
  await run('ceph-osd', ['-c', conf, '-i', '0', '--mkfs', '--osd-uuid', disk])
  daemon('ceph-osd', '-i', '0')
  daemon('radosgw', '-n', 'client.admin')
  const endpoint = `http://127.0.0.1:${gateway}`
  await waitForResponse(endpoint)
  await Promise.all([OWNER, STRANGER].map((user) => addUser(conf, user)))
  return { endpoint, owner: OWNER, stranger: STRANGER }
}

const configuration = (home: string, cluster: string, monitor: number, gateway: number): string => `
[global]
fsid = ${cluster}
mon host = [v2:127.0.0.1:${monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${home}/keyring
auth allow insecure global id reclaim = true
mon data = ${home}/mon
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
osd data = ${home}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
run dir = ${home}
admin socket =
log file =
debug mon = 0
debug osd = 0
debug rgw = 0
rgw data = ${home}/rgw
rgw frontends = beast endpoint=127.0.0.1:${gateway}
rgw dns name = localhost
rgw gc obj min wait = 0
rgw gc processor period = 5
rgw gc processor max time = 5
`

/** Starts a daemon in the foreground. `setpriv` makes the kernel kill it if this process dies first. */
function startDaemon(home: string, name: string, args: string[]): () => Promise<void> {
  const log = openSync(join(home, `${name}.log`), 'a')
  const command = ['--pdeathsig', 'KILL', name, '-f', '-c', join(home, 'ceph.conf'), ...args]
  const child = spawn('setpriv', command, { stdio: ['ignore', log, log] })
  const ended = once(child, 'exit')
  return async () => {
    child.kill('SIGKILL') // its data is not kept
    await ended
  }
}

async function waitForResponse(endpoint: string): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (await fetch(endpoint).catch(() => undefined)) return
    await sleep(100)
  }
  throw new Error(`${endpoint} did not answer within 60 s`)
}

async function addUser(conf: string, { accessKeyId, secretAccessKey }: Credentials): Promise<void> {
  const user = ['--uid', accessKeyId, '--display-name', accessKeyId]
  const key = ['--access-key', accessKeyId, '--secret-key', secretAccessKey]
  await run('radosgw-admin', ['-c', conf, 'user', 'create', ...user, ...key], { timeout: 60_000 })
}

/** Two different free ports. */
async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()] as const
  await Promise.all(servers.map((server) => once(server.listen(0, '127.0.0.1'), 'listening')))
  const [first, second] = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return [first!, second!]
}

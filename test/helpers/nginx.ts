/* nginx as a static file server on a free port of 127.0.0.1, with Debian's defaults except for logs. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'

/** Not in the PATH of normal users. */
const NGINX = '/usr/sbin/nginx'

export interface NginxOptions {
  /** serve directory listings (ngx_http_autoindex_module) */
  listing?: boolean
  /** log each request to a file */
  log?: boolean
}

/** Serves a directory until its test ends, and gives the URL without a trailing slash. */
export async function startNginx(
  t: Pick<Test, 'teardown'>,
  root: string,
  { listing = false, log = false }: NginxOptions = {},
): Promise<string> {
  const home = mkdtempSync(join(tmpdir(), 'nginx-'))
  const port = await freePort()
  writeFileSync(join(home, 'nginx.conf'), configuration(home, port, root, { listing, log }))
  // the kernel kills nginx if this process ends first
  const command = ['--pdeathsig', 'KILL', NGINX, '-p', home, '-c', 'nginx.conf', '-e', 'stderr']
  const child = spawn('setpriv', command, { stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
    rmSync(home, { recursive: true })
  })
  const url = `http://127.0.0.1:${port}`
  while (!(await fetch(url).catch(() => undefined))) {
    if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}`)
    await sleep(20)
  }
  return url
}

/** A configuration for one foreground process of the current user. */
const configuration = (
  home: string,
  port: number,
  root: string,
  { listing, log }: Required<NginxOptions>,
): string => `
error_log stderr crit;
daemon off;
master_process off;
pid ${home}/pid;
events {}
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log ${log ? 'access.log' : 'off'};
  sendfile on;
  tcp_nopush on;
  client_body_temp_path ${home}/body;
  proxy_temp_path ${home}/proxy;
  fastcgi_temp_path ${home}/fastcgi;
  uwsgi_temp_path ${home}/uwsgi;
  scgi_temp_path ${home}/scgi;
  server {
    listen 127.0.0.1:${port};
    root ${root};
    autoindex ${listing ? 'on' : 'off'};
  }
}
`

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await once(server.close(), 'close')
  return port
}

// What an agent loads with `btfmill/client`: few packages, and exactly those that `@btfmill/client` depends on.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

const SERVICE = join(import.meta.dirname, '../../../service')

/** The files that a process loads when it imports a module. */
function loadedBy(module: string): string[] {
  const script = `
    require('node:module').registerHooks({
      load: (url, context, next) => (console.log(url), next(url, context)),
    })
    import(${JSON.stringify(join(SERVICE, module))})`
  return execFileSync(process.execPath, ['--eval', script], { encoding: 'utf8' }).split('\n')
}

function packagesIn(files: readonly string[]): string[] {
  const names = files.map((file) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1])
  return [...new Set(names.filter((name) => name !== undefined))].sort()
}

/** The files of `service/` among these, by their paths below it. */
const servicesIn = (files: readonly string[]): string[] =>
  files
    .filter((file) => file.startsWith(`file://${SERVICE}/`))
    .map((file) => file.slice(`file://${SERVICE}/`.length))
    .sort()

t.test('the client loads the packages that its manifest names, and no other', async (t) => {
  const manifest = JSON.parse(readFileSync(join(SERVICE, 'client/package.json'), 'utf8'))
  t.same(packagesIn(loadedBy('client/client.ts')), Object.keys(manifest.dependencies).sort())
})

t.test('the client loads none of the files of the server', async (t) => {
  t.same(servicesIn(loadedBy('client/client.ts')), [
    'atomic-file.ts',
    'client/body.ts',
    'client/client.ts',
    'client/delta.ts',
    'client/host.ts',
    'client/install.ts',
    'client/newest.ts',
    'client/place.ts',
    'client/proxy-agent.ts',
    'client/request.ts',
    'client/signed-catalog.ts',
    'concurrency.ts',
    'error.ts',
    'kernel/lookup.ts',
    'kernel/name.ts',
    'kernel/public-record.ts',
    'pack/pack.ts',
    'printable.ts',
  ])
})

t.test('the server would be noticed among the packages that are loaded', async (t) => {
  t.ok(packagesIn(loadedBy('index.ts')).includes('fastify'))
})

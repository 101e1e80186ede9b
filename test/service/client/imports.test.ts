// The entry point `btfmill/client` stays light: an agent that imports it loads no HTTP service and no S3 client.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'

const ENTRY_POINT = join(import.meta.dirname, '../../../service/client/client.ts')

/** Returns the npm packages that importing a module loads, measured in a new process. */
function packagesOf(module: string): string[] {
  const script = `
    require('node:module').registerHooks({
      load: (url, context, next) => (console.log(url), next(url, context)),
    })
    import(${JSON.stringify(module)})`
  const loaded = execFileSync(process.execPath, ['--eval', script], { encoding: 'utf8' })
  const names = loaded.matchAll(/\/node_modules\/((?:@[^/]+\/)?[^/]+)\//g)
  return [...new Set([...names].map(([, name]) => name!))].sort()
}

t.test('the client loads neither the HTTP service nor S3', async (t) => {
  const packages = packagesOf(ENTRY_POINT)
  t.ok(packages.includes('undici'), packages.join(' '))
  t.same(
    packages.filter((name) => /fastify|aws|smithy|pino|bullmq|redis|commander/.test(name)),
    [],
  )
})

t.test('the check finds packages of the HTTP service if they are loaded', async (t) => {
  t.ok(packagesOf(join(ENTRY_POINT, '../index.ts')).includes('fastify'))
})

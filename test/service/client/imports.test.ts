// The door `btfmill/client` stays light: an agent that takes it in carries no HTTP service and no S3 client.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'

const DOOR = join(import.meta.dirname, '../../../service/client/client.ts')

/** The npm packages that are loaded with a module, in a process of its own. */
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

t.test('it loads neither the HTTP service nor S3', async (t) => {
  const packages = packagesOf(DOOR)
  t.ok(packages.includes('undici'), packages.join(' '))
  t.same(
    packages.filter((name) => /fastify|aws|smithy|pino|bullmq|redis|commander/.test(name)),
    [],
  )
})

t.test('and that would be seen', async (t) => {
  t.ok(packagesOf(join(DOOR, '../index.ts')).includes('fastify'))
})

#!/usr/bin/env -S node --max-semi-space-size=8
/*
 * The command line. It is started, above and in package.json, with a small new space: at its usual size that alone is up
 * to 100 MB, for no less work. Each command's code is loaded when it is called, so that none carries another's weight.
 * Exit status: 0 done, 1 failed in part or whole, 2 wrong usage.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { DEFAULT_STORE } from '../../storage/index.ts'
import { POLICIES, PROFILE_NAMES } from '../bundle/profile.ts'
import { settings } from '../config.ts'
import { restartWithFixedThreshold } from './malloc.ts'
import { printable } from './output.ts'
import { parseScratch, parseSize } from './size.ts'

const program = new Command('btfmill')
  .description('BTF for kernels that were built without it')
  .exitOverride()
  .showHelpAfterError()

const command = (usage: string, description: string): Command =>
  program
    .command(usage)
    .description(description)
    .option(
      '--store <url>',
      'where BTF is kept: file:DIR, or s3://BUCKET/PREFIX?endpoint=URL',
      DEFAULT_STORE,
    )
    .option('--json', 'machine-readable output')

/** The filters that mean the same everywhere. */
const filtered = (to: Command): Command =>
  to
    .option('--distro <id>', "os-release's ID")
    .option('--version <version>', "os-release's VERSION_ID")
    .option('--arch <arch>', 'uname -m, or any other name of it')
    .option('--release <glob>', 'uname -r, * ? [0-9] stand for what they do in a shell')

/** What is signed: the snapshot of the catalog, and the manifest of the archive tree. */
const signing = (to: Command): Command =>
  to.option('--secret-key <file>', 'sign the catalog with it', process.env.BTFMILL_SECRET_KEY)

const SOURCES_FILE = 'JSON, an array of sources that are added, or override what is known of one'

const count = (text: string): number => {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('a whole number from 1')
  return Number(text)
}

const moduleNames = (text: string): string[] => {
  const names = text.split(',')
  if (!names.every((name) => /^[\w-]{1,64}$/.test(name)))
    throw new InvalidArgumentError('names of modules with commas between them, or all')
  return names
}

/** How much of this machine jobs may take. */
const working = (to: Command): Command =>
  to
    .option('--jobs <n>', 'so many packages at once', count, 1)
    .option('--memory <size>', 'that they may take together; else three quarters', parseSize)
    .option(
      '--scratch <dir[:size]>',
      'for what is unpacked, and how much of it; else nine tenths of what is free',
      parseScratch,
    )

const queueOption = (): Option =>
  new Option('--queue <url>', 'the Redis by which workers get their jobs: redis://HOST:PORT')

working(
  signing(
    filtered(
      command('generate', 'make BTF from the packages that sources offer, or from files and URLs'),
    ),
  ),
)
  .argument('[file...]', 'a .deb, .ddeb, .rpm, vmlinux or vmlinuz; --release then names its kernel')
  .option('--source <id>', 'only this source')
  .option('--sources <file>', SOURCES_FILE)
  .option('--mirror <url>', "the distribution's mirror, http://host/debian")
  .option('--limit <n>', 'only the newest of those that match', count)
  .option(
    '--early-stop',
    'end each download when vmlinux is whole; its digest is then not compared',
  )
  .option(
    '--embedded',
    "take the BTF that kernels carry themselves, from their images; pahole's only where they have none",
  )
  .option('--modules <names>', 'BTF of these modules, too: NAME,… or all', moduleNames)
  .addOption(queueOption())
  .option('--detach', 'queue the jobs and leave them to workers')
  .option('--archive', 'keep the btfhub-archive tree, too')
  .action(async (files, options) => {
    process.exitCode = await (await import('./generate.ts')).run(files, options)
  })

working(signing(command('worker', 'do what generate --queue queues, on any number of machines')))
  .addOption(queueOption().makeOptionMandatory())
  .option('--sources <file>', SOURCES_FILE)
  .option('--lease <seconds>', 'silent for so long, its jobs are given to others', count, 30)
  .option('--archive', 'keep the btfhub-archive tree, too')
  .action(async (options) => {
    process.exitCode = await (await import('./worker.ts')).run(options)
  })

const serve = program
  .command('serve')
  .description('answer agents over HTTP; each setting is a flag, a variable, or a line of the file')
  .option('--config <file>', 'JSON: { "rate-limit": 600 }', process.env.BTFMILL_CONFIG)
  .option('--json', 'machine-readable output')
for (const { flag, env, choices, ...setting } of settings) {
  const usual = String(setting.default) === '' ? '' : `default: ${setting.default}, `
  const description = `${setting.description} (${usual}env: ${env})`
  const option = new Option(`${flag} <value>`, description)
  serve.addOption(choices ? option.choices(choices) : option)
}
serve.action(async (options) => {
  restartWithFixedThreshold()
  process.exitCode = await (await import('./serve.ts')).run(options)
})

command('token', 'make a bearer token for the service; only its hash is kept')
  .argument('<name>', 'whose it is')
  .option('--tokens <file>', 'where its hash goes', process.env.BTFMILL_TOKENS ?? 'tokens.json')
  .addOption(
    new Option('--scope <scope...>', 'what it is for; each may read')
      .choices(['read', 'generate'])
      .default(['read']),
  )
  .option('--days <n>', 'how long it works; else for ever', count)
  .option('--revoke', 'take it out')
  .action(async (name, options) => {
    process.exitCode = await (await import('./token.ts')).run(name, options)
  })

filtered(command('list', 'kernels and their state')).action(async (options) => {
  process.exitCode = await (await import('./list.ts')).run(options)
})

filtered(
  command('fetch', "a file with this machine's BTF, or another's with --distro … --release …"),
)
  .option('--server <url>', 'the service to ask', process.env.BTFMILL_SERVER)
  .option('--wait', 'wait while the server is making it')
  .option('-o, --output <file>', 'write it there, not into the cache')
  .option('--public-key <file>', 'take only what a catalog signed by this key names')
  .action(async (options) => {
    process.exitCode = await (await import('./fetch.ts')).run(options)
  })

command('dump', 'BTF as C')
  .argument('<what>', 'a file (raw BTF or ELF), or DISTRO/VERSION/ARCH/RELEASE in the store')
  .addOption(new Option('--format <form>', 'a header that compiles').choices(['c']).default('c'))
  .option('--type <name>', 'only this struct or union, with sizes and offsets')
  .option('--modules', 'of a kernel in the store: with the types of its modules')
  .action(async (what, options) => {
    process.exitCode = await (await import('./dump.ts')).run(what, options)
  })

/** Kernels of the store by filters, or one by name. */
const choosing = (to: Command): Command =>
  filtered(to).addOption(
    new Option(
      '--btf <what>',
      'only this file (raw BTF or ELF), or DISTRO/VERSION/ARCH/RELEASE in the store',
    ).conflicts(['distro', 'version', 'arch', 'release']),
  )

choosing(
  command('minimize', 'of BTF only what BPF objects need, for the kernels of the store or one'),
)
  .argument('<object...>', 'BPF object files')
  .requiredOption(
    '-o, --output <path>',
    'a file with --btf, else a directory: DISTRO/VERSION/ARCH/RELEASE.btf',
  )
  .action(async (objects, options) => {
    process.exitCode = await (await import('./minimize.ts')).run(objects, options)
  })

choosing(
  command('check', 'would BPF objects load on the kernels of the store or one; where not, and why'),
)
  .argument('<object...>', 'BPF object files')
  .action(async (objects, options) => {
    process.exitCode = await (await import('./check.ts')).run(objects, options)
  })

command('diff', 'what changed between two kernels')
  .argument('<a>', 'a file (raw BTF or ELF), or DISTRO/VERSION/ARCH/RELEASE in the store')
  .argument('<b>', 'the newer one')
  .option('--type <name>', 'only the types of this name')
  .action(async (a, b, options) => {
    process.exitCode = await (await import('./diff.ts')).run(a, b, options)
  })

/** Options that may be given several times. */
const collect = (value: string, all: string[]): string[] => [...all, value]

signing(
  filtered(
    command('export', 'a bundle: BTF of many kernels in one archive, as a consumer of it reads it'),
  ),
)
  .addOption(new Option('--profile <name>', 'for whom').choices(PROFILE_NAMES))
  .option('--object <file>', 'only what this BPF object needs; may be given again', collect, [])
  .addOption(
    new Option('--unsupported <policy>', 'kernels on which an object does not work')
      .choices(POLICIES)
      .default('skip'),
  )
  .option('--zstd', 'zstd in place of xz; for the profile tree')
  .option('-o, --output <file>', 'else it is called as the profile has it; - is standard output')
  .addOption(
    new Option('--verify <file>', 'compare a bundle with its manifest').conflicts([
      'profile',
      'object',
      'output',
    ]),
  )
  .option('--public-key <file>', 'and that with its signature')
  .action(async (options) => {
    process.exitCode = await (await import('./export.ts')).run(options)
  })

signing(command('import', 'BTF that others made: a btfhub-archive tree, or a bundle'))
  .argument('<tree>', 'a directory, or a tar: DISTRO/VERSION/ARCH/RELEASE.btf or .btf.tar.xz')
  .action(async (tree, options) => {
    process.exitCode = await (await import('./import.ts')).run(tree, options)
  })

signing(command('verify', 'every record, blob and archive against its digest'))
  .option('--repair', 'make again what can be made again')
  .action(async (options) => {
    process.exitCode = await (await import('./verify.ts')).run(options)
  })

command('gc', 'remove blobs that no record names').action(async (options) => {
  process.exitCode = await (await import('./gc.ts')).run(options)
})

command('sources', 'where kernels with debug info come from, and which keys are on this machine')
  .option('--sources <file>', SOURCES_FILE)
  .action(async (options) => {
    process.exitCode = await (await import('./sources.ts')).run(options)
  })

command('keygen', 'a pair of keys, to sign the catalog and to verify it')
  .option('-o, --output <name>', 'NAME.key and NAME.pub', 'btfmill')
  .action(async (options) => {
    process.exitCode = await (await import('./keygen.ts')).run(options)
  })

/** An error's message after its code, which the system's messages begin with already. */
function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code, message } = error as NodeJS.ErrnoException
  return printable(code === undefined || message.startsWith(code) ? message : `${code}: ${message}`)
}

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
  } else {
    console.error(`btfmill: ${said(error)}`)
    if (process.env.BTFMILL_DEBUG) console.error(error)
    process.exitCode = 1
  }
}

#!/usr/bin/env -S node --max-semi-space-size=8
/*
 * The command line. Node is started, above and in package.json, with a small new space: at its usual size the new space
 * alone takes up to 100 MB and saves no work. The code of a command is loaded when the command is called.
 */
import tab from '@bomb.sh/tab/commander'
import { type Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { POLICIES, PROFILE_NAMES } from '../bundle/profile.ts'
import { LOADERS } from '../client/place.ts'
import { settings } from '../config.ts'
import { SCOPES } from '../http/token.ts'
import { OFFSET_FORMATS } from './offsets-formats.ts'
import {
  baseOption,
  collect,
  count,
  dialectOption,
  FORMATS,
  indexOption,
  KERNEL,
  KINDS,
  keepOf,
  kindOption,
  moduleNames,
  OBJECTS,
  optionOf,
  reportFile,
  SORTS,
  serverOption,
  settingOption,
  TYPE,
  upTo,
  withFilters,
  withJson,
  withSeriesFilters,
  withSettings,
  withSource,
  withStore,
  withToken,
} from './options.ts'
import { BROKEN_PIPE, endOnBrokenPipe, printable } from './output.ts'
import { command, describe, program, runs } from './program.ts'

program.commandsGroup('Make BTF:')

const generate = command(
  'generate',
  'make BTF from kernel packages',
  'Makes BTF from the kernel packages of distributions, or from files and URLs, and puts it into the store. Kernels that the store has already, and those that failed and are not due, are skipped.',
  'generate --distro debian --distro-version 12 --arch x86_64 --limit 1',
  'generate --distro debian --jobs 8 --job-memory 6G --scratch /var/tmp:20G',
  'generate --distro debian --distro-version 12 linux-image-6.1.0-50-amd64-dbg_6.1.164-1_amd64.deb',
  'generate --from headers --distro debian --distro-version 12 /lib/modules/6.1.0-50-686-pae/build',
)
generate
  .argument(
    '[file...]',
    'packages (.deb, .ddeb, .rpm), vmlinux or vmlinuz files, or URLs of them; with --from headers the packages, the tar or the folder with the headers of one kernel',
  )
  .option(
    '--source <id>',
    'source to use, as `btfmill sources` lists it; may be repeated (default: all that match)',
    collect,
  )
  .option('--dry-run', 'list the packages that would be processed; write nothing')
  .option('--limit <n>', 'newest packages to take of those that match (default: all)', count)
  .option('--newest <n>', 'newest releases of each series to take (default: all)', count)
  .option(
    '--early-stop',
    'stop each download when vmlinux is complete; the checksum of the package is not verified',
  )
  .addOption(
    new Option(
      '--from <source>',
      "only BTF that kernels carry themselves (embedded), or only pahole's from debug info (debug), even if the store has the other (default: embedded BTF where there is any, otherwise pahole's); headers makes partial BTF of kernel headers, kept apart from the others",
    ).choices(['embedded', 'debug', 'headers']),
  )
  .option(
    '--modules <names>',
    'modules to make BTF of too: NAME,… or all (default: none)',
    moduleNames,
  )
  .option(
    '--inlined-calls',
    'record the functions of which some calls are inlined, so that probes miss them',
  )
  .option('--detach', 'queue the jobs, leave them to workers and end')
  .option('--archive', 'keep a btfhub-archive tree in the store too')
withFilters(generate)
withSettings(
  generate,
  'jobs',
  'paholeThreads',
  'jobMemory',
  'scratch',
  'queue',
  'sources',
  'keys',
  'mirror',
  'secretKey',
)
runs(withStore(generate), () => import('./generate.ts'))

const worker = command(
  'worker',
  'work on jobs from a queue',
  'Works on the jobs that `generate --queue` and `serve --queue` put into a Redis queue, until a signal ends it. Any number of workers may share a queue.',
  'worker --queue redis://127.0.0.1:6379 --store s3://btfmill --jobs 4',
)
worker
  .addOption(settingOption('queue', { mandatory: true }))
  .addOption(
    new Option(
      '--lease <seconds>',
      "seconds without a heartbeat before a worker's jobs are reassigned",
    )
      .argParser(count)
      .default(30),
  )
  .option('--archive', 'keep a btfhub-archive tree in the store too')
withSettings(
  worker,
  'jobs',
  'paholeThreads',
  'jobMemory',
  'scratch',
  'sources',
  'keys',
  'mirror',
  'secretKey',
)
runs(withStore(worker), () => import('./worker.ts'))

const importing = command(
  'import',
  'add BTF from a btfhub-archive tree, a bundle or a pack',
  'Adds BTF that others made: of a btfhub-archive tree, or of a bundle or pack that `btfmill export` wrote.',
  'import ./btfhub-archive',
  'import btfhub.tar',
  'import debian.btfpack',
).argument(
  '<tree>',
  'pack, or directory or tar with DISTRO/VERSION/ARCH/RELEASE.btf or .btf.tar.xz',
)
runs(withStore(withSettings(importing, 'secretKey')), () => import('./import.ts'))

const mirror = command(
  'mirror',
  "take over another service's kernels",
  'Takes over the kernels of another btfmill: records and BTF, out of packs where it has them. A second run reads only what is new, and a run that was ended goes on where it was. BTF that was made or imported here is not replaced.',
  'mirror http://btfmill.example:8080 --distro debian',
  'mirror http://btfmill.example:8080 --public-key btfmill.pub --store s3://btfmill',
)
mirror
  .argument('<url>', 'address of the service')
  .option(
    '--public-key <file>',
    "accept only what the service's catalog, signed by this key, names (default: all)",
  )
  .option(
    '--max-age <seconds>',
    'with --public-key: seconds since the catalog was signed, at most (default: any)',
    count,
  )
  .option('--dry-run', 'list the kernels that would be taken over; write nothing to the store')
  .option(
    '--cache <directory>',
    'directory for what is remembered between runs (default: ~/.cache/btfmill/mirror)',
  )
withFilters(mirror)
runs(withStore(withToken(withSettings(mirror, 'secretKey'))), () => import('./mirror.ts'))

const sources = command(
  'sources',
  'list where kernel packages come from',
  'Lists the repositories with kernel packages, whether their signing keys are on this machine, and how `generate` last read them. With --fetch-keys, downloads the keys. Only keys with the fingerprints that btfmill knows are taken.',
  'sources',
  'sources --sources my-sources.json --json',
  'sources --fetch-keys --source alma --source rocky',
)
sources
  .option(
    '--source <id>',
    'source to list, or to fetch the keys of; may be repeated (default: all)',
    collect,
  )
  .option('--fetch-keys', 'download the keys of the sources, in place of listing them')
runs(withStore(withSettings(sources, 'sources', 'keys')), () => import('./sources.ts'))

program.commandsGroup('Serve BTF:')

const serve = command(
  'serve',
  'serve BTF over HTTP',
  'Serves the BTF of a store over HTTP until SIGINT or SIGTERM. SIGHUP reads the tokens and the catalog again. Each setting is a flag, an environment variable or a key of the JSON file, in this order of precedence.',
  'serve --listen 0.0.0.0:8080 --store s3://btfmill',
  'serve --generate on-miss --job-memory 4G --body-cache 1G',
  'serve --config btfmill.json',
)
serve
  .addOption(
    new Option('--config <file>', 'JSON file with settings, such as { "rate-limit": 600 }')
      .env('BTFMILL_CONFIG')
      .default('', 'no file'),
  )
  .option('--json', 'log JSON, as --log-format json does')
for (const setting of settings) {
  const option = optionOf(setting).helpGroup(setting.group)
  serve.addOption(setting.choices ? option.choices(setting.choices) : option)
}
runs(serve, async () => {
  const { run } = await import('./serve.ts')
  return { run: () => run(serve.opts(), flagsOf(serve)) }
})

/** The settings that were given as flags: those of other places are read by `readConfig`. */
const flagsOf = (of: Command): Record<string, unknown> =>
  Object.fromEntries(
    settings
      .filter(({ name }) => of.getOptionValueSource(name) === 'cli')
      .map(({ name }) => [name, of.getOptionValue(name)]),
  )

const token = command(
  'token',
  'create, list or revoke access tokens',
  'Creates a bearer token for the service and prints it once. The file keeps only its hash.',
  'token ci --scope generate --days 90',
  'token list',
  'token revoke ci',
)
const tokensOption = () =>
  new Option('--tokens <file>', 'file with the hashes of the tokens')
    .env('BTFMILL_TOKENS')
    .default('tokens.json')
token
  .argument('<name>', 'name of its holder, for logs and limits')
  .addOption(tokensOption())
  .addOption(
    new Option('--scope <scope...>', 'what its holder may do; every token may read')
      .choices(SCOPES)
      .default(['read'], 'read'),
  )
  .option('--days <n>', 'days until it expires (default: never)', count)
runs(withJson(token), () => import('./token.ts'))

const tokenCommand = (name: string, description: string, example: string): Command =>
  describe(token.command(name), description, `${description}.`, [example]).addOption(tokensOption())

/** The options of a command below `token`, which may also stand before its name. Errors: options for a new token. */
function tokenOptions(of: Command): { tokens: string; json?: boolean } {
  for (const name of ['scope', 'days'])
    if (token.getOptionValueSource(name) === 'cli')
      throw new InvalidArgumentError(`--${name} is only for a new token`)
  const given = [of, token].find((command) => command.getOptionValueSource('tokens') === 'cli')
  return { json: token.opts().json, ...of.opts(), tokens: (given ?? of).opts().tokens }
}

const tokenList = tokenCommand(
  'list',
  'List the names, scopes and expiry of all tokens',
  'token list --json',
)
runs(withJson(tokenList), async () => {
  const { list } = await import('./token.ts')
  return { run: () => list(tokenOptions(tokenList)) }
})

const tokenRevoke = tokenCommand(
  'revoke',
  'Remove a token; a running service refuses it within seconds',
  'token revoke ci',
).argument('<name>', 'name of its holder')
runs(tokenRevoke, async () => {
  const { revoke } = await import('./token.ts')
  return {
    run: (name: string) => revoke(name, tokenOptions(tokenRevoke)),
  }
})

program.commandsGroup('Use BTF:')

const list = command(
  'list',
  'list kernels and their state',
  'Lists the kernels of a store: those with BTF, those with BTF of their own, and those that failed. Sources whose index could not be read are listed too, if they match the filters.',
  'list --distro ubuntu --distro-version 24.04',
  "list --release '6.1.*' --json",
)
list.option(
  '--partial',
  'list the kernels with partial BTF, made from headers, in place of the others',
)
runs(withSource(withFilters(list)), () => import('./list.ts'))

const fetch = command(
  'fetch',
  'get BTF for this machine or another',
  "Prints the path of a file with the BTF of this machine's kernel: the kernel's own, one from the cache, or one from a server or a pack. With filters it gets the BTF of another kernel; what is not given is as on this machine.",
  'fetch --server http://btfmill.example:8080 --wait',
  'fetch --server http://btfmill.example:8080 --distro debian --distro-version 12 --release 6.1.0-50-amd64 -o kernel.btf',
  'fetch --server http://btfmill.example:8080 --install libbpf',
  'fetch --pack debian.btfpack --release 6.1.0-50-amd64 -o kernel.btf',
)
fetch
  .addOption(serverOption('server to ask', 'none, this machine and the cache alone'))
  .addOption(
    new Option(
      '--pack <file|url>',
      'pack to read instead of asking a server; of a URL two ranges are read (default: none)',
    ).conflicts(['wait', 'publicKey']),
  )
  .option('--wait', 'wait while the server generates it')
  .addOption(
    new Option(
      '--partial',
      'take partial BTF, made from kernel headers, where the server has no other; it lacks many types that the kernel has',
    ).conflicts(['pack', 'publicKey']),
  )
  .option('-o, --output <file>', 'file to write (default: one in the cache)')
  .addOption(
    dialectOption(
      "convert the BTF for an older loader, the kernel's own BTF too (default: as it is)",
    ),
  )
  .addOption(
    new Option(
      '--install <loader>',
      'put the BTF where programs with this loader look for it that take no option; the path is printed (default: none)',
    )
      .choices(LOADERS)
      .conflicts(['output', 'uninstall']),
  )
  .addOption(
    new Option(
      '--uninstall <loader>',
      'remove what --install wrote for this loader and release (default: none)',
    ).choices(LOADERS),
  )
  .addOption(
    new Option(
      '--root <dir>',
      "root directory of the machine that is meant, such as the host's in a container (default: /)",
    ).env('BTFMILL_ROOT'),
  )
  .option(
    '--public-key <file>',
    'accept only BTF that a catalog signed by this key names (default: any)',
  )
  .option(
    '--max-age <seconds>',
    'with --public-key: seconds since the catalog was signed, at most (default: any)',
    count,
  )
  .option(
    '--deadline <seconds>',
    'seconds after which it gives up (default: 300, or 3600 with --wait)',
    count,
  )
  .option('--distro <id>', "distribution, by os-release's ID (default: this machine's)")
  .option('--distro-version <version>', "its VERSION_ID (default: this machine's)")
  .option('--arch <arch>', "architecture, any usual name (default: this machine's)")
  .option('--release <release>', "kernel release (default: this machine's)")
runs(withJson(withToken(fetch)), () => import('./fetch.ts'))

const dump = command(
  'dump',
  'print BTF as C or JSON',
  'Prints BTF as a C header that compiles, or one type of it as pahole does. With --json it prints one type per line.',
  'dump newest > vmlinux.h',
  'dump newest --object agent.bpf.o > vmlinux.h',
  'dump debian/12/x86_64/6.1.0-50-amd64 --type task_struct',
  'dump /sys/kernel/btf/vmlinux --json',
)
dump
  .argument('<kernel>', KERNEL)
  .option('--type <name>', TYPE)
  .addOption(
    new Option(
      '--object <file>',
      'BPF object: print only the types that it uses, whole; may be repeated (default: all types)',
    )
      .argParser(collect)
      .conflicts(['type', 'json']),
  )
  .addOption(baseOption())
  .addOption(
    new Option(
      '--with-modules',
      'merge the types of its modules; for kernels of the store',
    ).conflicts('base'),
  )
runs(withSource(dump), () => import('./dump.ts'))

/** Kernels of the store by filters, or one by its name. */
const withKernels = (to: Command): Command =>
  withFilters(
    to.addOption(
      new Option('--btf <kernel>', `one ${KERNEL} (default: all that match the filters)`).conflicts(
        ['distro', 'distroVersion', 'arch', 'release'],
      ),
    ),
  ).addOption(baseOption())

const check = command(
  'check',
  'check whether BPF objects work on kernels',
  'Checks whether BPF objects load, attach and read the right values on kernels, and prints the reasons where they do not. The exit status is 1 if an object fails on a kernel, and 3 if that cannot be told for some.',
  'check agent.bpf.o --distro debian',
  'check agent.bpf.o --btf /sys/kernel/btf/vmlinux',
  'check agent.bpf.o --format junit > check.xml',
  'check agent.bpf.o --baseline last.ndjson',
)
  .addArgument(OBJECTS)
  .addOption(
    new Option('--format <format>', 'form of the report; json is the same as --json')
      .choices(FORMATS)
      .default('text')
      .conflicts('json'),
  )
  .option(
    '--report <format:file>',
    'write a report to a file too, such as sarif:check.sarif; may be repeated (default: none)',
    reportFile,
    [],
  )
  .option('--all', 'print also the kernels on which an object works')
  .option('--all-programs', 'check also programs in sections that begin with ?')
  .option(
    '--partial',
    'check also on kernels of which the store or service has only partial BTF, made from headers; with --btf FILE, the file is such; what it does not tell is "cannot tell"',
  )
  .option(
    '--baseline <file>',
    'fail only if an object no longer works on a kernel: the output of an earlier check --json (default: none)',
  )
runs(withSource(withKernels(check)), () => import('./check.ts'))

const prove = command(
  'prove',
  'load BPF objects on a booted kernel',
  "Boots a kernel in QEMU, loads the programs of BPF objects there with libbpf, and prints what libbpf and the kernel's verifier say. The image comes from the distribution's package. KVM is used where it works. The exit status is 0 if all objects load, 1 if one does not. With --command it is that of your own loader.",
  'prove agent.bpf.o --kernel debian/12/x86_64/6.1.0-50-cloud-amd64',
  'prove agent.bpf.o --kernel newest --attach',
  'prove agent.bpf.o --kernel ./bzImage --command ./loader',
)
  .addArgument(OBJECTS)
  .requiredOption(
    '--kernel <kernel>',
    'kernel to boot: a file (vmlinuz, bzImage), or a kernel of the store: DISTRO/VERSION/ARCH/RELEASE, its release, newest, or a glob that matches one (required)',
  )
  .option(
    '--btf <kernel>',
    "BTF for a kernel that has none of its own: a file, or a kernel of the store (default: the store's)",
  )
  .addOption(new Option('--attach', 'attach the programs too').conflicts('command'))
  .addOption(
    new Option('--all-programs', 'load also programs in sections that begin with ?').conflicts(
      'command',
    ),
  )
  .addOption(
    new Option(
      '--size-maps',
      'give maps without a size a small one, as loaders do before they load',
    ).conflicts('command'),
  )
  .option(
    '--command <file>',
    'loader to run with the object as argument: a static program, or one whose libraries are on this machine (default: one with libbpf)',
  )
  .addOption(
    new Option('--timeout <seconds>', 'seconds after which the guest is killed')
      .argParser(count)
      .default(300),
  )
  .option(
    '--cache <directory>',
    "directory that keeps images and the guest's programs (default: each run downloads them)",
  )
  .option(
    '--source <id>',
    'source of the image, as `btfmill sources` lists it; may be repeated (default: all that match)',
    collect,
  )
withSettings(prove, 'sources', 'keys', 'mirror')
runs(withStore(prove), () => import('./prove.ts'))

const minimize = command(
  'minimize',
  'write only the BTF that BPF objects need',
  'Writes BTF with only the types that BPF objects need, for all kernels that match or for one.',
  'minimize agent.bpf.o --distro debian -o btf/',
  'minimize agent.bpf.o --btf newest -o newest.btf',
).addArgument(OBJECTS)
minimize.requiredOption(
  '-o, --output <path>',
  'file to write with --btf; otherwise a directory for DISTRO/VERSION/ARCH/RELEASE.btf (required)',
)
minimize.addOption(dialectOption('convert the BTF for an older loader (default: as it is)'))
runs(withSource(withKernels(minimize)), () => import('./minimize.ts'))

const offsets = command(
  'offsets',
  'print offsets of members for many kernels',
  'Prints the offsets of members, the sizes of types and the values of enumerators, over kernels, for programs that have them compiled in. A list has an entry a line: [NAME =] TYPE.MEMBER, TYPE or ENUM.ENUMERATOR, with further paths behind | for kernels that lack the first; # begins a comment. Kernels with the same values share a row. Offsets of bitfields are in bits, all others in bytes.',
  'offsets list.txt --distro ubuntu',
  'offsets list.txt --format c > offsets.h',
  'offsets list.txt --format datadog --arch x86_64 > constants_amd64.json',
)
  .argument('<list>', 'file with the members, types and enumerators')
  .addOption(
    new Option('--format <format>', 'form of the output; json is the same as --json')
      .choices(OFFSET_FORMATS)
      .default('json')
      .conflicts('json'),
  )
runs(withSource(withKernels(offsets)), () => import('./offsets.ts'))

const diff = command(
  'diff',
  'compare the types of two kernels',
  'Prints the types that were added, removed or changed. The exit status is 1 if anything differs, 0 if nothing does.',
  'diff debian/12/x86_64/6.1.0-49-amd64 debian/12/x86_64/6.1.0-50-amd64',
  'diff old.btf newest --type task_struct',
  'diff 6.1.0-49-amd64 newest --object agent.bpf.o',
)
diff
  .argument('<old>', KERNEL)
  .argument('<new>', 'newer one, in the same forms')
  .option('--type <name>', 'name of the types to compare (default: all types)')
  .addOption(kindOption('kind of the types to compare', Object.keys(SORTS)))
  .option(
    '--object <file>',
    'BPF object that is to run on both: compare only the types and members that it uses; may be repeated (default: all types)',
    collect,
  )
  .addOption(baseOption())
  .option('--new-base <kernel>', 'base of the newer file (default: that of --base)')
runs(withSource(diff), () => import('./diff.ts'))

const search = command(
  'search',
  'find kernels, types, members and functions',
  'Searches all kernels of a store for a name: types, members, enumerators, functions, tracepoints, kfuncs, helpers and map types, or for kernels by release, build-id or digest. Exact names come first, then names that begin with the text, then those that contain it. The index of the store is brought up to date first.',
  'search vfs_read',
  'search task_struct.state',
  'search BPF_MAP_TYPE_ --kind map_type --limit 100',
)
search
  .argument('<text>', 'name or part of one, TYPE.MEMBER, a release, a build-id or a digest')
  .addOption(
    kindOption('kind of result', ['kernel', ...Object.keys(KINDS), 'member', 'enumerator']),
  )
  .addOption(
    new Option('--limit <n>', 'results to print, at most 100').argParser(upTo(100)).default(20),
  )
  .addOption(indexOption())
runs(withSource(search), () => import('./search.ts'))

const history = command(
  'history',
  'print the forms of a type or member over all kernels',
  'Prints for each series of kernels which of them have which form of a type, function, member or enumerator, and what changed: came, went, moved, with another size, type or name. Kernels with equal forms share a line. The index of the store is brought up to date first.',
  'history task_struct.__state',
  'history vfs_read --arch x86_64',
  'history sock --server http://btfmill.example:8080 --json',
)
history
  .argument('<name>', 'TYPE, FUNCTION, TYPE.MEMBER or ENUM.ENUMERATOR')
  .addOption(kindOption('kind of declaration', Object.keys(KINDS)))
  .addOption(indexOption())
withSeriesFilters(history)
runs(withSource(history), () => import('./history.ts'))

const exporting = command(
  'export',
  'bundle the BTF of many kernels',
  'Writes the BTF of many kernels into one archive, in the form that its consumer reads, or verifies such an archive. The profile pack is for import and fetch: one file with a few kilobytes for a kernel.',
  'export --profile btfhub --distro debian -o btfhub.tar',
  'export --profile inspektor-gadget --object agent.bpf.o -o btfs.tar.gz',
  'export --profile pack -o debian.btfpack --distro debian',
  'export --verify btfhub.tar --public-key btfmill.pub',
)
exporting
  .addOption(
    new Option('--profile <name>', 'consumer of the bundle (required without --verify)').choices([
      ...PROFILE_NAMES,
      'pack',
    ]),
  )
  .option(
    '--object <file>',
    'BPF object whose types alone are kept; may be repeated (default: all types)',
    collect,
    [],
  )
  .addOption(
    new Option('--unsupported <policy>', 'what to do with kernels on which an object does not load')
      .choices(POLICIES)
      .default('skip', 'skip'),
  )
  .option('--zstd', 'compress with zstd, not with xz; for the profile tree')
  .option(
    '--partial',
    'take also kernels of which the store or service has only partial BTF, made from headers; it lacks many types that the kernels have',
  )
  .addOption(dialectOption('convert the BTF for an older loader (default: as it is)'))
  .option('-o, --output <file>', "output file, - for stdout (default: the profile's name)")
  .addOption(
    new Option(
      '--verify <file>',
      'bundle to compare with its manifest, or pack to rebuild (default: write one)',
    ).conflicts(['profile', 'object', 'output']),
  )
  .option(
    '--public-key <file>',
    "key to verify the manifest's signature with (default: do not verify it)",
  )
withFilters(withSettings(exporting, 'secretKey'))
runs(withSource(exporting), () => import('./export.ts'))

program.commandsGroup('Keep a store:')

const verify = command(
  'verify',
  'compare records, blobs, packs and archives with their digests',
  'Compares every record, blob and archive of a store with its digest, and rebuilds every kernel of its packs. With a secret key it reports what this key has not signed.',
  'verify',
  'verify --repair --secret-key btfmill.key',
).option('--repair', 'make again what can be made again')
runs(withStore(withSettings(verify, 'secretKey')), () => import('./verify.ts'))

const pack = command(
  'pack',
  'put the BTF of many kernels into packs',
  'Stores kernels as differences from each other, in packs in the store, and removes the blobs of those that few ask for. Each kernel is read back from its pack before its blob is removed. Everything that reads the store reads packs too. `gc` removes the packs that larger ones replace.',
  'pack --dry-run',
  'pack --distro debian --keep newest:2',
)
pack
  .addOption(
    new Option(
      '--keep <kernels>',
      'kernels whose blobs stay beside the packs, since they are asked for often: newest:N of each series, none or all',
    )
      .argParser(keepOf)
      .default({ newest: 1 }, 'newest:1'),
  )
  .option('--dry-run', 'print what would be packed and removed; write nothing')
withFilters(pack)
runs(withStore(withSettings(pack, 'secretKey')), () => import('./pack.ts'))

const gc = command(
  'gc',
  'remove blobs and packs that no record needs',
  'Removes the blobs that no record names, and the packs whose kernels no record names or another pack has. Prints their keys. The catalog then names the packs that are left.',
  'gc --store /srv/btfmill',
)
runs(withStore(withSettings(gc, 'secretKey')), () => import('./gc.ts'))

const remove = command(
  'rm',
  'remove kernels',
  'Removes kernels: all builds of those that are named, and of those that match the filters. Their BTF goes with the next `gc`, unless other kernels have the same. `generate` may make them again.',
  'rm debian/12/x86_64/6.1.0-9-amd64',
  'rm --distro debian --distro-version 10 --dry-run',
)
  .argument('[kernel...]', 'kernels: DISTRO/VERSION/ARCH/RELEASE, or a release')
  .option('--dry-run', 'list what would be removed; remove nothing')
withFilters(withSettings(remove, 'secretKey'))
runs(withStore(remove), () => import('./rm.ts'))

const prune = command(
  'prune',
  'remove old kernels, or those that nobody asks for',
  'Removes all kernels but those that --newest or --unused keeps. A series has the kernels of one distribution, version, architecture and flavour. Give `generate` the same --newest, or it makes them again.',
  'prune --newest 10 --dry-run',
  'prune --newest 3 --distro fedora',
  'prune --newest 1 --unused 6',
)
  .option(
    '--newest <n>',
    'keep this many releases of each series, the newest (default: none)',
    count,
  )
  .option(
    '--unused <months>',
    'keep what a client got in this many calendar months, the present one included (default: requests do not count)',
    count,
  )
  .option('--dry-run', 'list what would be removed; remove nothing')
withFilters(withSettings(prune, 'secretKey'))
runs(withStore(prune), () => import('./prune.ts'))

const stats = command(
  'stats',
  'count kernels and bytes by series',
  'Counts the kernels of a store by series and state, with the bytes of their BTF and the bytes that it takes in the store. What several series share counts in each of them.',
  'stats',
  'stats --distro debian --json',
)
withFilters(stats)
runs(withStore(stats), () => import('./stats.ts'))

const index = command(
  'index',
  'bring the index of all types up to date',
  'Takes the kernels of a store up into the index that search, history and the service use, and drops those that are gone. The index is derived from the store and can be removed at any time. A service keeps its own up to date.',
  'index',
  'index --rebuild --index /var/cache/btfmill.sqlite',
)
index.option('--rebuild', 'make it anew').addOption(indexOption())
runs(withStore(index), () => import('./index-types.ts'))

const sign = command(
  'sign',
  'sign the catalog of a store',
  'Signs the catalog of an existing store, and the manifest of its btfhub-archive tree if it has one. `fetch --public-key` and minisign verify the signatures.',
  'sign --secret-key btfmill.key --store s3://btfmill',
)
sign.addOption(settingOption('secretKey', { mandatory: true }))
runs(withStore(sign), () => import('./sign.ts'))

const keygen = command(
  'keygen',
  'create a key pair for signatures',
  'Creates a secret key that signs the catalog, and the public key that verifies it. Existing files are not overwritten.',
  'keygen -o btfmill',
).option('-o, --output <name>', 'name of the files NAME.key and NAME.pub', 'btfmill')
runs(withJson(keygen), () => import('./keygen.ts'))

program.commandsGroup('Get help:')
program.helpCommand('help [command]', 'print the help of a command')
tab(program, { completionCommandName: 'completion' })
describe(
  program.commands.find((known) => known.name() === 'completion')!.helpGroup('Get help:'),
  'print a completion script for a shell',
  'Prints a script with which a shell completes commands, options and their choices.',
  [
    'completion bash > ~/.local/share/bash-completion/completions/btfmill',
    'completion zsh > ~/.zfunc/_btfmill',
    'completion fish > ~/.config/fish/completions/btfmill.fish',
  ],
)

/** An error's message behind its code, with which the system's messages begin already. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code, message } = error as NodeJS.ErrnoException
  return code === undefined || message.startsWith(code) ? message : `${code}: ${message}`
}

endOnBrokenPipe()
try {
  if (process.argv.length <= 2) program.error('error: no command given')
  await program.parseAsync()
} catch (error) {
  if (process.exitCode === BROKEN_PIPE) {
    // nobody reads what could be said
  } else if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
  } else {
    console.error(`btfmill: ${printable(textOf(error))}`)
    if (process.env.BTFMILL_DEBUG) console.error(error)
    process.exitCode = 1
  }
}

/* Options that several commands have, and the parsers of their values. */
import { Argument, type Command, InvalidArgumentError, Option } from 'commander'
import type { DeclarationKind, Dialect, TypeSort } from '../../bpf/index.ts'
import { readSetting, type Setting, type SettingName, settings } from '../config.ts'

/** The dialects of bpf/, which is not loaded for a help text. */
const DIALECTS: Readonly<Record<Dialect, true>> = {
  'libbpf-0.3': true,
  'libbpf-0.5': true,
  'libbpf-0.8': true,
  'libbpf-1.0': true,
  'libbpf-1.7': true,
  'cilium-0.6': true,
  'cilium-0.9.1': true,
  'cilium-0.9.3': true,
  'cilium-0.21': true,
}

/** Kinds of types, and of all that the index has. */
export const SORTS: Readonly<Record<TypeSort, true>> = {
  struct: true,
  union: true,
  enum: true,
  typedef: true,
  func: true,
  fwd: true,
  int: true,
  float: true,
}
export const KINDS: Readonly<Record<DeclarationKind, true>> = {
  ...SORTS,
  kfunc: true,
  tracepoint: true,
  helper: true,
  map_type: true,
}

/** An option with the flag, description, variable and default of a setting. */
export function settingOption(name: SettingName, { mandatory = false } = {}): Option {
  const setting = settings.find((known) => known.name === name)!
  const option = optionOf(setting).argParser((text) => {
    const reading = readSetting(name, text)
    if ('problem' in reading) throw new InvalidArgumentError(reading.problem)
    return reading.value
  })
  if (!mandatory) return option
  option.description += ' (required)'
  return option.default(undefined).makeOptionMandatory()
}

export function optionOf({
  flag,
  value,
  description,
  env,
  defaultText,
  ...setting
}: Setting): Option {
  const option = new Option(`${flag} <${value}>`, description).env(env)
  return defaultText === undefined ? option : option.default(setting.default, defaultText)
}

export const withSettings = (to: Command, ...names: SettingName[]): Command =>
  names.reduce((command, name) => command.addOption(settingOption(name)), to)

export const withStore = (to: Command): Command => withJson(withSettings(to, 'store'))

export const serverOption = (description: string, without: string): Option =>
  new Option('--server <url>', description).env('BTFMILL_SERVER').default('', without)

/** The token for a server: in a file, or in the environment, where other users cannot see it. */
export const withToken = (to: Command): Command =>
  to
    .addOption(
      new Option(
        '--token-file <file>',
        'file with the token for the service (default: the token in $BTFMILL_TOKEN)',
      ).env('BTFMILL_TOKEN_FILE'),
    )
    .hook('preAction', () => {
      to.setOptionValue('token', process.env.BTFMILL_TOKEN || undefined)
    })

/** The options of commands that read kernels: from a store, or from a service in its place. */
export const withSource = (to: Command): Command =>
  withToken(
    withStore(to).addOption(
      serverOption('service whose kernels to use in place of a store', 'none, the store'),
    ),
  ).hook('preAction', () => chooseSource(to))

/** A flag wins over the variable of the other option. Errors: `InvalidArgumentError` if both are given in the same way. */
function chooseSource(of: Command): void {
  const [store, server] = ['store', 'server'].map((name) => of.getOptionValueSource(name))
  if (!of.opts().server) return
  if (store === 'cli' && server === 'env') of.setOptionValue('server', '')
  else if (store === server)
    of.error(`error: both a store and a server are given: expected --store or --server`)
}
export const withJson = (to: Command): Command => to.option('--json', 'print JSON, for programs')

/** The filters of all commands that work on many kernels. */
export const withFilters = (to: Command): Command =>
  withSeriesFilters(to).option(
    '--release <glob>',
    'kernel release as `uname -r` prints it, or a glob; may be repeated (default: all)',
    collect,
  )

/** The filters of commands that work on whole series of kernels. */
export const withSeriesFilters = (to: Command): Command =>
  to
    .option(
      '--distro <id>',
      "distribution, by os-release's ID; may be repeated (default: all)",
      collect,
    )
    .option(
      '--distro-version <version>',
      "its version, by os-release's VERSION_ID; may be repeated (default: all)",
      collect,
    )
    .option(
      '--arch <arch>',
      'architecture: x86_64, arm64 or any other usual name; may be repeated (default: all)',
      collect,
    )

export const count = (text: string): number => {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('expected an integer from 1')
}

/** An integer from 1 to a limit. */
export const upTo =
  (most: number) =>
  (text: string): number => {
    const number = count(text)
    if (number <= most) return number
    throw new InvalidArgumentError(`expected an integer from 1 to ${most}`)
  }

/** The kernels whose blobs `pack` keeps: so many of each series, or all. */
export const keepOf = (text: string): { newest: number } | 'all' => {
  const [, digits] = /^newest:(\d{1,6})$/.exec(text) ?? []
  if (text === 'all') return 'all'
  if (text === 'none') return { newest: 0 }
  if (digits !== undefined) return { newest: Number(digits) }
  throw new InvalidArgumentError('expected newest:N, none or all')
}

export const moduleNames = (text: string): string[] => {
  const names = text.split(',')
  if (names.every((name) => /^[\w-]{1,64}$/.test(name))) return names
  throw new InvalidArgumentError('expected module names, comma-separated, or all')
}

/** Adds a value to those of an option that may be repeated. */
export const collect = (value: string, all: readonly string[] = []): string[] => [...all, value]

export const KERNEL =
  'file (raw BTF or ELF), or a kernel of the store: DISTRO/VERSION/ARCH/RELEASE, its release, newest, or a glob that matches one'
export const OBJECTS = new Argument('<object...>', 'BPF object files')
/** Formats of the reports of check. */
export const FORMATS = ['text', 'json', 'junit', 'sarif', 'github'] as const

export const reportFile = (text: string, all: readonly object[]): object[] => {
  const [, format = '', path] = /^([a-z]+):(.+)$/s.exec(text) ?? []
  if (path !== undefined && (FORMATS as readonly string[]).includes(format))
    return [...all, { format, path }]
  throw new InvalidArgumentError(`expected FORMAT:FILE, with one of ${FORMATS.join(', ')}`)
}

export const dialectOption = (description: string): Option =>
  new Option('--dialect <dialect>', description).choices(Object.keys(DIALECTS))

/** The base of files with split BTF. */
export const baseOption = (): Option =>
  new Option(
    '--base <kernel>',
    'kernel whose BTF a file with the split BTF of a module continues, in the same forms (default: the file is whole)',
  )
/** A choice that may be repeated. */
export const kindOption = (description: string, kinds: readonly string[]): Option =>
  new Option(
    '--kind <kind>',
    `${description}: ${kinds.join(', ')}; may be repeated (default: all)`,
  ).argParser((kind: string, all: readonly string[] = []) => {
    if (kinds.includes(kind)) return [...all, kind]
    throw new InvalidArgumentError(`expected one of ${kinds.join(', ')}`)
  })

export const indexOption = (): Option =>
  new Option(
    '--index <file>',
    'file with the index of the store (default: beside a store on disk, otherwise in ~/.cache/btfmill/indexes)',
  ).env('BTFMILL_INDEX')
export const TYPE = 'struct or union to print, with sizes and offsets (default: all types)'

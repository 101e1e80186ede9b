/*
 * The settings of a service, in one schema. A setting has one name everywhere: `rateLimit` here is `--rate-limit` as a
 * flag, `BTFMILL_RATE_LIMIT` in the environment and `"rate-limit"` in the file. Flags win over the environment, the
 * environment over the file, the file over the defaults. The service does not start with an unknown setting or an
 * invalid value; every problem is reported with the place where it was found.
 */
import { isIP } from 'node:net'
import Type, { type Static, type TProperties, type TSchema } from 'typebox'
import { Errors } from 'typebox/value'
import { DEFAULT_STORE } from '../storage/index.ts'
import { parseListen } from './address.ts'
import { defaultsFor } from './memory.ts'
import { formatSize, parseSize } from './size.ts'
import { parseUpstream, UPSTREAM_FORMS } from './upstream-address.ts'

const KIB = 1024
const MIB = 1024 * KIB
const GIB = 1024 * MIB
const TIB = 1024 * GIB

/** The defaults that follow the memory and the processors of this machine. */
const MACHINE = defaultsFor()

/** Keywords of the schemas here, beside those of JSON Schema. */
interface Keywords {
  description: string
  default: unknown
  /** the placeholder for the value in a help text */
  value: string
  /** the default in words, where the value does not say it */
  defaultText?: string
  /** whether it is a number of bytes, which may be written as a size */
  size?: true
  minimum?: number
  maximum?: number
}

const oneOf = <T extends string>(description: string, ...values: T[]) =>
  Type.Enum(values, { description, default: values[0] as T, value: 'choice' })

interface NumberOptions {
  minimum?: number
  maximum?: number
  defaultText?: string
}

const number = (value: string, usual: number, description: string, options: NumberOptions = {}) =>
  Type.Integer({
    minimum: 1,
    maximum: 2 ** 31 - 1,
    default: usual,
    description,
    value,
    ...options,
  })

const count = (usual: number, description: string, options?: NumberOptions) =>
  number('n', usual, description, options)

const seconds = (usual: number, description: string, options?: NumberOptions) =>
  number('seconds', usual, description, options)

const size = (usual: number, description: string, options: NumberOptions = {}) =>
  Type.Integer({
    minimum: 1,
    maximum: TIB,
    default: usual,
    description,
    value: 'size',
    size: true,
    ...options,
  })

/** Settings whose default follows the memory of the machine. */
const bySize = (usual: number, description: string, options?: NumberOptions) =>
  size(usual, description, { ...options, defaultText: `${formatSize(usual)}, by memory` })
const byCount = (usual: number, description: string, options?: NumberOptions) =>
  count(usual, description, { ...options, defaultText: `${usual}, by memory` })

const toggle = (usual: boolean, description: string) =>
  Type.Boolean({ default: usual, description, value: 'true|false' })

const list = (value: string, description: string, defaultText: string) =>
  Type.Array(Type.String({ minLength: 1 }), {
    default: [] as string[],
    description,
    value,
    defaultText,
  })

const text = (value: string, description: string, defaultText?: string) =>
  Type.String({ default: '', description, value, ...(defaultText && { defaultText }) })

const LISTEN_FORMS = 'HOST:PORT, [IPV6]:PORT or unix:PATH'
const SCRATCH_FORMS = 'DIR, DIR:SIZE or :SIZE'

const SERVER = {
  store: Type.String({
    default: DEFAULT_STORE,
    value: 'store',
    minLength: 1,
    description: 'store with the BTF: a directory, or s3://BUCKET/PREFIX?endpoint=URL',
  }),
  pack: list(
    'files',
    'packs to serve too: files, comma-separated; the default store is then used only if it exists',
    'none',
  ),
  listen: Type.String({
    default: '127.0.0.1:8080',
    value: 'address',
    description: `address to listen on: ${LISTEN_FORMS}`,
  }),
  state: text(
    'dir',
    'directory for what this server alone remembers: misses and digests of archives',
    'STORE-state beside a store on disk, otherwise none',
  ),
  index: text(
    'file|off',
    'file with the index of all types, which this server keeps up to date; off for none',
    'declarations.sqlite in the directory of --state, otherwise in ~/.cache/btfmill/indexes',
  ),
  refresh: seconds(30, 'seconds between two looks at the store for changes by other writers', {
    maximum: 86_400,
  }),
  bodyCache: bySize(MACHINE.bodyCache, 'memory for response bodies that are kept', {
    minimum: MIB,
  }),
  redirectAbove: size(0, 'with a store in S3, redirect clients to the bucket for BTF above this', {
    minimum: 0,
    defaultText: '0, never',
  }),
}

const ACCESS = {
  read: oneOf('clients that may read: all, or those with a token', 'anonymous', 'token'),
  tokens: text('file', 'file with hashed tokens, written by `btfmill token`', 'no tokens'),
  trustProxy: list(
    'list',
    'proxies whose X-Forwarded-For is trusted: addresses and networks, comma-separated',
    'none',
  ),
  metrics: oneOf(
    'clients that may see /metrics: those that may read, those with a token, or none',
    'read',
    'token',
    'off',
  ),
  rateLimit: count(0, 'requests per minute and client', { minimum: 0, defaultText: '0, no limit' }),
}

const LOG = {
  logLevel: oneOf('least severe level to log', 'info', 'trace', 'debug', 'warn', 'error', 'silent'),
  logFormat: oneOf('log format; auto is pretty on a terminal', 'auto', 'json', 'pretty'),
  logRequests: toggle(true, 'log a line for each request'),
}

const GENERATION = {
  generate: oneOf('generate BTF for kernels that are missing', 'none', 'on-miss'),
  generateAnonymous: oneOf(
    'start generation without a token: local (only if the service listens on this machine alone), never or always',
    'local',
    'never',
    'always',
  ),
  generateAllow: list(
    'globs',
    'kernels that may be generated: globs of DISTRO/VERSION/ARCH/RELEASE, comma-separated',
    'all',
  ),
  generateDeny: list(
    'globs',
    'kernels that are never generated, even if allowed: the same globs',
    'none',
  ),
  maxGenerations: count(64, 'generations at once, running and waiting'),
  generatePerClient: count(8, 'generations at once per client'),
  generatePerHour: count(60, 'generations started per hour and client'),
  jobs: count(1, 'packages to work on at once', { maximum: 256 }),
  paholeThreads: count(1, 'threads of one pahole, from pahole 1.26 on; the BTF is the same', {
    maximum: 256,
  }),
  jobMemory: size(0, 'memory all jobs may use together', {
    minimum: 0,
    maximum: 16 * TIB,
    defaultText: '75 % of RAM',
  }),
  scratch: text(
    'dir[:size]',
    'directory for unpacked packages, and the space they may use there',
    "the system's temporary directory, 90 % of what is free",
  ),
  queue: text('url', 'Redis queue that hands jobs to workers: redis://HOST:PORT', 'no queue'),
  sources: text('file', 'JSON file with sources to add, or to change the built-in ones', 'no file'),
  keys: text(
    'dir',
    "directory with distributions' keys to use in place of the system's, written by `btfmill sources --fetch-keys`",
    "~/.local/share/btfmill/keys, beside the system's",
  ),
  mirror: text('url', 'mirror to download packages from: http://HOST/debian', "the system's own"),
  secretKey: text('file', 'secret key that signs the catalog', 'no signature'),
}

const UPSTREAMS = {
  upstream: list(
    'urls',
    `services and archives to ask, in this order, for kernels that are missing here: ${UPSTREAM_FORMS}`,
    'none',
  ),
  upstreamAllow: list(
    'globs',
    'kernels that may be asked for upstream: globs of DISTRO/VERSION/ARCH/RELEASE, comma-separated',
    'all',
  ),
  upstreamDeny: list(
    'globs',
    'kernels that are never asked for upstream, even if allowed: the same globs',
    'none',
  ),
  upstreamWait: seconds(5, 'seconds that a request waits for upstreams', { maximum: 600 }),
  upstreamTimeout: seconds(60, 'seconds for one upstream to send the BTF of a kernel', {
    maximum: 3600,
  }),
  upstreamRequests: count(8, 'kernels asked for upstream at once', { maximum: 256 }),
  upstreamMisses: seconds(600, 'seconds until an upstream is asked again for what it did not have'),
}

const OBJECTS = {
  taskTime: seconds(10, 'seconds to work on an object for one kernel', { maximum: 3600 }),
  taskMemory: bySize(MACHINE.taskMemory, 'memory to work on an object for one kernel', {
    minimum: 16 * MIB,
    maximum: 16 * GIB,
  }),
  resultMemory: bySize(MACHINE.resultMemory, 'memory for results of objects that are kept', {
    minimum: MIB,
  }),
  bulkRequests: byCount(
    MACHINE.bulkRequests,
    'requests at once that minimize or check for many kernels; one client may have half',
  ),
  threads: byCount(MACHINE.threads, 'threads that work on objects', { maximum: 1024 }),
  bundles: byCount(MACHINE.bundles, 'bundles made at once; one client may have half'),
  bundleWindow: bySize(
    MACHINE.bundleWindow,
    "largest window of a bundle's compressor; xz takes 11 times as much memory",
    { minimum: MIB, maximum: 64 * MIB },
  ),
  uploadLimit: size(32 * MIB, 'largest file a client may upload', {
    minimum: KIB,
    maximum: 2 * GIB - 1,
  }),
  uploadMemory: bySize(
    MACHINE.uploadMemory,
    'memory for all uploads; one client may use a quarter',
    {
      minimum: KIB,
    },
  ),
  uploadTimeout: seconds(10, 'seconds without a byte before an upload is ended', { maximum: 3600 }),
  answerMemory: bySize(MACHINE.answerMemory, 'memory for answers that slow clients have not read', {
    minimum: MIB,
  }),
  answerLimit: size(256 * MIB, 'largest answer of check or minimize for many kernels', {
    minimum: KIB,
  }),
}

const LIMITS = {
  bodyLimit: size(64 * KIB, 'largest request body other than an upload', {
    maximum: 2 * GIB - 1,
  }),
  headerLimit: size(16 * KIB, 'largest request header', { minimum: KIB, maximum: MIB }),
  urlLimit: size(4 * KIB, 'longest URL', { minimum: 256, maximum: 16 * KIB }),
  connections: count(20_000, 'connections at once'),
  requestTimeout: seconds(30, 'seconds for a request to arrive', { maximum: 3600 }),
  idleTimeout: seconds(
    120,
    'seconds without progress before a response is cut off; a bundle, or an answer for many kernels, must average 1 KiB/s',
    {
      maximum: 3600,
    },
  ),
  drain: seconds(1, 'seconds to announce a shutdown before idle connections close', {
    minimum: 0,
    maximum: 3600,
  }),
  grace: seconds(30, 'seconds to finish running requests at shutdown', {
    minimum: 0,
    maximum: 3600,
  }),
}

const SETTINGS = {
  ...SERVER,
  ...ACCESS,
  ...LOG,
  ...GENERATION,
  ...UPSTREAMS,
  ...OBJECTS,
  ...LIMITS,
} as const satisfies TProperties

const Schema = Type.Object(SETTINGS, { additionalProperties: false })
export type Config = Static<typeof Schema>
export type SettingName = keyof Config

/** Settings by the place they come from, in that place's own names and types. */
export interface Layers {
  /** the parsed content of the file */
  file?: unknown
  env?: Readonly<Record<string, string | undefined>>
  flags?: Readonly<Record<string, unknown>>
}

export type Reading = { kind: 'config'; config: Config } | { kind: 'wrong'; problems: string[] }

/** A setting as a command line offers it. */
export interface Setting {
  name: SettingName
  /** heading under which a help text lists it */
  group: string
  flag: string
  env: string
  description: string
  /** placeholder for its value */
  value: string
  default: unknown
  /** the default as a help text shows it; undefined for an empty one */
  defaultText: string | undefined
  choices?: string[]
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)
const envOf = (name: string): string => `BTFMILL_${kebab(name).replaceAll('-', '_').toUpperCase()}`
const keywordsOf = (schema: TSchema) => schema as TSchema & Keywords

const GROUPS = {
  'Service:': SERVER,
  'Access:': ACCESS,
  'Log:': LOG,
  'Generation:': GENERATION,
  'Upstreams:': UPSTREAMS,
  'Objects and bundles:': OBJECTS,
  'Limits:': LIMITS,
}

/** All settings, in the order of a help text. */
export const settings: readonly Setting[] = Object.entries(GROUPS).flatMap(([group, schemas]) =>
  Object.entries(schemas).map(([name, schema]) => settingOf(name as SettingName, group, schema)),
)

const NAMES = settings.map(({ name }) => name)

function settingOf(name: SettingName, group: string, schema: TSchema): Setting {
  const { description, value, default: usual, defaultText } = keywordsOf(schema)
  return {
    name,
    group,
    flag: `--${kebab(name)}`,
    env: envOf(name),
    description,
    value,
    default: usual,
    defaultText: defaultText ?? (String(show(name, usual)) || undefined),
    ...(Type.IsEnum(schema) && { choices: schema.enum.map(String) }),
  }
}

/** The default of every setting. */
export const DEFAULTS: Config = Object.fromEntries(
  settings.map((setting) => [setting.name, setting.default]),
) as Config

/** Reads the settings of all layers, or every problem that they have. */
export function readConfig({ file, env = {}, flags = {} }: Layers): Reading {
  const problems: string[] = []
  const config: Record<string, unknown> = { ...DEFAULTS }
  const set = (name: SettingName, where: string, value: unknown) => {
    const problem = problemOf(name, value)
    if (problem) problems.push(`invalid ${where} ${written(value)}: ${problem}`)
    else config[name] = value
  }
  for (const [key, value] of entriesOf(file, problems)) {
    const name = NAMES.find((known) => kebab(known) === key)
    if (name) set(name, `"${key}" in the file`, fromFile(name, value))
    else problems.push(`unknown setting "${key}" in the file`)
  }
  for (const name of NAMES) {
    const value = env[envOf(name)]
    if (value !== undefined) set(name, envOf(name), parse(name, value))
  }
  for (const name of NAMES) {
    const value = flags[name]
    if (value !== undefined) set(name, `--${kebab(name)}`, parse(name, String(value)))
  }
  if (config.read === 'token' && config.tokens === '')
    problems.push('--read token needs --tokens FILE')
  return problems.length > 0
    ? { kind: 'wrong', problems }
    : { kind: 'config', config: config as Config }
}

/** Reads the value of one setting from a text. */
export function readSetting(
  name: SettingName,
  text: string,
): { value: unknown } | { problem: string } {
  const value = parse(name, text)
  const problem = problemOf(name, value)
  return problem === undefined ? { value } : { problem }
}

function entriesOf(file: unknown, problems: string[]): [string, unknown][] {
  if (file === undefined) return []
  if (typeof file === 'object' && file !== null && !Array.isArray(file)) return Object.entries(file)
  problems.push('invalid file: expected a JSON object, such as { "rate-limit": 600 }')
  return []
}

/** A value of the file. Only a size may be a text where the setting is a number. */
function fromFile(name: SettingName, value: unknown): unknown {
  return keywordsOf(SETTINGS[name]).size && typeof value === 'string' ? parse(name, value) : value
}

/** A text in the type of its setting; the text itself where it is not of that type. */
function parse(name: SettingName, text: string): unknown {
  const schema: TSchema = SETTINGS[name]
  if (keywordsOf(schema).size) return parseSize(text) ?? text
  if (Type.IsInteger(schema)) return /^\d{1,15}$/.test(text) ? Number(text) : text
  if (Type.IsBoolean(schema)) return { true: true, false: false }[text] ?? text
  if (Type.IsArray(schema)) return text === '' ? [] : text.split(',').map((part) => part.trim())
  return text
}

/** A sentence with the values that are valid; undefined for a valid value. */
function problemOf(name: SettingName, value: unknown): string | undefined {
  const valid = Errors(SETTINGS[name], value).length === 0 && (CHECKS[name]?.(value) ?? true)
  if (valid) return undefined
  return `expected ${expected(name)}`
}

/** A value in an error, without passwords. */
const written = (value: unknown): string => hide(JSON.stringify(value)).slice(0, 100)

/** The values that a setting takes, in words. */
function expected(name: SettingName): string {
  const schema: TSchema = SETTINGS[name]
  const forms = FORMS[name]
  if (forms !== undefined) return forms
  if (Type.IsInteger(schema)) {
    const { minimum, maximum, size } = keywordsOf(schema)
    const [from, to] = [minimum, maximum].map((limit) => show(name, limit))
    return size ? `a size such as 256M, from ${from} to ${to}` : `an integer from ${from} to ${to}`
  }
  if (Type.IsBoolean(schema)) return 'true or false'
  if (Type.IsEnum(schema)) return `one of ${schema.enum.join(', ')}`
  return Type.IsArray(schema) ? 'a list of texts' : 'a text'
}

/** The form of a value where its type does not say it. */
const FORMS: Partial<Record<SettingName, string>> = {
  listen: LISTEN_FORMS,
  trustProxy: 'addresses or ADDRESS/BITS, comma-separated',
  scratch: SCRATCH_FORMS,
  upstream: UPSTREAM_FORMS,
}

/** Checks that a schema does not make of a value of its type. */
const CHECKS: Partial<Record<SettingName, (value: unknown) => boolean>> = {
  listen: (value) => parseListen(value as string) !== undefined,
  trustProxy: (value) => (value as string[]).every(isNetwork),
  scratch: (value) => parseScratch(value as string) !== undefined,
  upstream: (value) => (value as string[]).every((url) => parseUpstream(url) !== undefined),
}

function isNetwork(text: string): boolean {
  const [address = '', bits = '0', ...rest] = text.split('/')
  const family = isIP(address)
  return (
    family > 0 &&
    rest.length === 0 &&
    Number(bits) <= (family === 4 ? 32 : 128) &&
    /^\d+$/.test(bits)
  )
}

/** A directory, and how many bytes of it may be used. */
export interface Scratch {
  directory?: string
  size?: number
}

/** Parses `DIR`, `DIR:SIZE` or `:SIZE`; undefined for a size that is not valid. */
export function parseScratch(text: string): Scratch | undefined {
  const [, directory = '', digits] = /^(.*?)(?::(\d+[KMGT]?))?$/is.exec(text) ?? []
  const size = digits === undefined ? undefined : parseSize(digits)
  if (digits !== undefined && !size) return undefined
  return { ...(directory !== '' && { directory }), ...(size !== undefined && { size }) }
}

/** The settings as they may be printed and logged: sizes with units, and without passwords. */
export function shown(config: Config): Record<string, unknown> {
  return Object.fromEntries(
    NAMES.map((name) => {
      const value = show(name, config[name])
      return [kebab(name), hidden(value)]
    }),
  )
}

/** A value without the passwords in its texts. */
function hidden(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(hidden)
  return typeof value === 'string' ? hide(value) : value
}

/** The value of a setting for people: a size with its unit. */
function show(name: SettingName, value: unknown): unknown {
  const { size } = keywordsOf(SETTINGS[name])
  return size && typeof value === 'number' ? formatSize(value) : value
}

/** A text without the passwords that its URLs hold. */
function hide(text: string): string {
  return text
    .replace(/(\w:\/\/)[^\s/@]*@/g, '$1(hidden)@')
    .replace(/([?&][\w-]*(?:secret|password|token|key)[\w-]*=)[^&\s"]*/gi, '$1(hidden)')
}

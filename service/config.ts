/*
 * How a service is set up: one schema. A setting has one name at every door: `rateLimit` here is `--rate-limit` as a
 * flag, `BTFMILL_RATE_LIMIT` in the environment and `"rate-limit"` in the file. Flags come before the environment, the
 * environment before the file, the file before the defaults; what no schema knows or allows is told with where it
 * stands, and nothing starts.
 */
import { isIP } from 'node:net'
import Type, { type Static, type TProperties, type TSchema } from 'typebox'
import { Errors } from 'typebox/value'
import { DEFAULT_STORE } from '../storage/index.ts'
import { parseListen } from './address.ts'

const oneOf = <T extends string>(description: string, ...values: T[]) =>
  Type.Enum(values, { description, default: values[0] as T })

const count = (value: number, description: string, minimum = 1, maximum = 2 ** 31 - 1) =>
  Type.Integer({ minimum, maximum, default: value, description })

const flag = (value: boolean, description: string) => Type.Boolean({ default: value, description })

const list = (description: string) =>
  Type.Array(Type.String({ minLength: 1 }), { default: [] as string[], description })

const text = (value: string, description: string, minLength = 0) =>
  Type.String({ minLength, default: value, description })

const KIB = 1024
const MIB = 1024 * KIB

const LISTEN_FORMS = 'HOST:PORT, [IPV6]:PORT or unix:PATH'

/** Every setting, with its default and what it is for. Times are in seconds, sizes in bytes. */
const SETTINGS = {
  store: text(DEFAULT_STORE, 'where BTF is kept: file:DIR, or s3://BUCKET/PREFIX?endpoint=URL', 1),
  listen: text('127.0.0.1:8080', LISTEN_FORMS),
  logLevel: oneOf('the least that is logged', 'info', 'trace', 'debug', 'warn', 'error', 'silent'),
  logFormat: oneOf('auto is pretty on a terminal', 'auto', 'json', 'pretty'),
  logRequests: flag(true, 'a line for each request'),
  metrics: oneOf(
    'who may see /metrics: who may read, or any token; off: none',
    'read',
    'token',
    'off',
  ),
  read: oneOf('who may read', 'anonymous', 'token'),
  tokens: text('', 'file of tokens, as `btfmill token` writes it'),
  trustProxy: list('addresses and networks of proxies whose X-Forwarded-For is believed'),
  rateLimit: count(0, 'requests of one client in a minute; 0 for any number', 0),
  memory: count(256 * MIB, 'bytes of bodies that are kept in memory', MIB, 2 ** 40),
  state: text(
    '',
    'directory for what this server alone remembers, misses and digests of archives; else STORE-state beside a store on disk',
  ),
  redirectAbove: count(
    0,
    'with a store in a bucket, clients are sent to it for BTF of more bytes than that; 0 for never',
    0,
  ),
  generate: oneOf('on-miss: make what is asked for and not there', 'none', 'on-miss'),
  generateAnonymous: oneOf(
    'whether who has no token with the scope generate may have BTF made; local: on this machine, where only it reaches the service',
    'local',
    'never',
    'always',
  ),
  generateAllow: list('globs of DISTRO/VERSION/ARCH/RELEASE that may be made; without any all'),
  generateDeny: list('globs of DISTRO/VERSION/ARCH/RELEASE that are not made, whatever is allowed'),
  generateQueue: count(64, 'kernels under way at once, waiting ones among them'),
  generatePerClient: count(8, 'of them at the wish of one client'),
  generatePerHour: count(60, 'kernels begun at the wish of one client in an hour'),
  generateJobs: count(1, 'packages at once', 1, 256),
  generateMemory: count(
    0,
    'bytes that these may take together; 0 for three quarters of the machine',
    0,
    2 ** 44,
  ),
  queue: text('', 'the Redis by which workers make it, redis://HOST:PORT; else this process does'),
  sources: text('', 'JSON file of sources that are added, or override what is known of one'),
  mirror: text('', "where packages come from, http://host/debian; else the machine's own mirror"),
  secretKey: text('', 'file of the key that signs the catalog when something was made'),
  scratch: text('', 'directory for what is unpacked; else the temporary one'),
  scratchSize: count(
    0,
    'bytes of it that may be used; 0 for nine tenths of what is free',
    0,
    2 ** 50,
  ),
  bodyLimit: count(64 * KIB, 'the longest body that is no upload'),
  uploadLimit: count(32 * MIB, 'the longest file that is sent', KIB),
  uploadMemory: count(
    512 * MIB,
    'bytes of all that is being sent or worked on at once',
    KIB,
    2 ** 40,
  ),
  taskTime: count(10, 'how long an object may be worked on for one kernel', 1, 3600),
  taskMemory: count(256 * MIB, 'bytes that may take', 16 * MIB, 2 ** 34),
  resultMemory: count(
    32 * MIB,
    'bytes of what was found out of objects that are kept',
    MIB,
    2 ** 40,
  ),
  surveys: count(16, 'so many requests at once to minimise or check for many kernels'),
  bundles: count(4, 'so many bundles are made at once; one may take 800 MB, for xz'),
  headerLimit: count(16 * KIB, 'the longest headers', KIB, MIB),
  urlLimit: count(4 * KIB, 'the longest address', 256, 16 * KIB),
  connections: count(20_000, 'so many connections at once'),
  requestTimeout: count(30, 'how long a request may take to arrive', 1, 3600),
  idleTimeout: count(120, 'how long a connection may pass nothing while it is answered', 1, 3600),
  drain: count(
    1,
    'on stopping, how long clients are told to go before idle connections close',
    0,
    3600,
  ),
  grace: count(30, 'on stopping, how long requests under way may take', 0, 3600),
  refresh: count(30, 'between two looks at the store for what others wrote', 1, 86_400),
} as const satisfies TProperties

const Schema = Type.Object(SETTINGS, { additionalProperties: false })
export type Config = Static<typeof Schema>
type Name = keyof Config

/** One layer of settings, by the names and in the types that its door has. */
export interface Layers {
  /** what the file holds, parsed */
  file?: unknown
  env?: Readonly<Record<string, string | undefined>>
  flags?: Readonly<Record<string, unknown>>
}

export type Reading = { kind: 'config'; config: Config } | { kind: 'wrong'; problems: string[] }

export interface Setting {
  name: string
  flag: string
  env: string
  description: string
  default: unknown
  /** the values there are, where there are few */
  choices?: string[]
}

const NAMES = Object.keys(SETTINGS) as Name[]
const kebab = (name: string): string => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)
const envOf = (name: string): string => `BTFMILL_${kebab(name).replaceAll('-', '_').toUpperCase()}`

/** All settings as a command line offers them. */
export const settings: readonly Setting[] = NAMES.map((name) => ({
  name,
  flag: `--${kebab(name)}`,
  env: envOf(name),
  ...described(SETTINGS[name]),
}))

function described(schema: TSchema): Pick<Setting, 'description' | 'default' | 'choices'> {
  const { description, default: value } = schema as TSchema &
    Pick<Setting, 'description' | 'default'>
  return {
    description,
    default: value,
    ...(Type.IsEnum(schema) && { choices: schema.enum.map(String) }),
  }
}

/** The defaults alone. */
export const DEFAULTS: Config = Object.fromEntries(
  settings.map((setting) => [setting.name, setting.default]),
) as Config

/** The settings that the layers come to, or what is wrong with them, each with where it stands. */
export function readConfig({ file, env = {}, flags = {} }: Layers): Reading {
  const problems: string[] = []
  const config: Record<string, unknown> = { ...DEFAULTS }
  const set = (name: Name, where: string, value: unknown) => {
    const wrong = whatIsWrong(name, value)
    if (wrong) problems.push(`${where} ${wrong}`)
    else config[name] = value
  }
  for (const [key, value] of entriesOf(file, problems)) {
    const name = NAMES.find((known) => kebab(known) === key)
    if (name) set(name, `"${key}" in the file`, value)
    else problems.push(`there is no setting "${key}", which is in the file`)
  }
  for (const name of NAMES) {
    const value = env[envOf(name)]
    if (value !== undefined) set(name, envOf(name), parse(SETTINGS[name], value))
  }
  for (const name of NAMES) {
    const value = flags[name]
    if (value !== undefined) set(name, `--${kebab(name)}`, parse(SETTINGS[name], String(value)))
  }
  if (config.read === 'token' && config.tokens === '')
    problems.push('who may read by token alone needs --tokens')
  return problems.length > 0
    ? { kind: 'wrong', problems }
    : { kind: 'config', config: config as Config }
}

function entriesOf(file: unknown, problems: string[]): [string, unknown][] {
  if (file === undefined) return []
  if (typeof file === 'object' && file !== null && !Array.isArray(file)) return Object.entries(file)
  problems.push('the file is not a JSON object')
  return []
}

/** What a text says, in the type of its setting; as it is where it says nothing of that type. */
function parse(schema: TSchema, text: string): unknown {
  if (Type.IsInteger(schema)) return /^\d{1,15}$/.test(text) ? Number(text) : text
  if (Type.IsBoolean(schema)) return { true: true, false: false }[text] ?? text
  if (Type.IsArray(schema)) return text === '' ? [] : text.split(',').map((part) => part.trim())
  return text
}

function whatIsWrong(name: Name, value: unknown): string | undefined {
  const [error] = Errors(SETTINGS[name], value)
  const told = error?.message ?? CHECKS[name]?.(value)
  return told && `${told}: ${hide(JSON.stringify(value)).slice(0, 100)}`
}

/** What a schema does not say of a value of its type. */
const CHECKS: Partial<Record<Name, (value: unknown) => string | undefined>> = {
  listen: (value) => (parseListen(value as string) ? undefined : `must be ${LISTEN_FORMS}`),
  trustProxy: (value) =>
    (value as string[]).every(isNetwork) ? undefined : 'must be addresses or ADDRESS/BITS',
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

/** Settings as they may be printed and logged. */
export function shown(config: Config): Record<string, unknown> {
  return Object.fromEntries(
    NAMES.map((name) => {
      const value = config[name]
      return [kebab(name), typeof value === 'string' ? hide(value) : value]
    }),
  )
}

/** A text without the passwords that its URLs hold. */
function hide(text: string): string {
  return text
    .replace(/(\w:\/\/)[^\s/@]*@/g, '$1(hidden)@')
    .replace(/([?&][\w-]*(?:secret|password|token|key)[\w-]*=)[^&\s"]*/gi, '$1(hidden)')
}

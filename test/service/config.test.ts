// Settings: their layers and precedence, the values that are refused, and the secrets that are hidden.
import t from 'tap'
import {
  type Config,
  type Layers,
  parseScratch,
  readConfig,
  settings,
  shown,
} from '../../service/config.ts'

function configOf(layers: Layers): Config {
  const reading = readConfig(layers)
  if (reading.kind === 'wrong') throw new Error(reading.problems.join('; '))
  return reading.config
}

const problemsOf = (layers: Layers): readonly string[] => {
  const reading = readConfig(layers)
  return reading.kind === 'wrong' ? reading.problems : []
}

t.test(
  'flags win over the environment, the environment over the file, the file over the defaults',
  async (t) => {
    const file = {
      'rate-limit': 1,
      'url-limit': 1001,
      'log-requests': false,
      'body-cache': 2 ** 21,
    }
    const env = { BTFMILL_RATE_LIMIT: '2', BTFMILL_URL_LIMIT: '1002', PATH: '/bin' }
    const flags = { rateLimit: '3' }
    t.match(configOf({ file, env, flags }), {
      rateLimit: 3,
      urlLimit: 1002,
      logRequests: false,
      bodyCache: 2 ** 21,
      listen: '127.0.0.1:8080',
    })
  },
)

t.test(
  'every setting has one name in all layers, and its default written as text is its default',
  async (t) => {
    const defaults = configOf({})
    for (const { name, flag, env, default: value } of settings) {
      t.equal(flag.slice(2).replaceAll('-', '_').toUpperCase(), env.replace('BTFMILL_', ''))
      t.same(configOf({ flags: { [name]: String(value) } }), defaults, flag)
      t.same(configOf({ env: { [env]: String(value) } }), defaults, env)
      t.same(configOf({ file: { [flag.slice(2)]: value } }), defaults, `${flag} in the file`)
    }
  },
)

t.test('the credentials of upstreams are hidden, and an address must be one', async (t) => {
  const upstream = 'https://me:s3cret@a.example,btfhub+https://:t0ken@b.example/archive'
  const config = configOf({ env: { BTFMILL_UPSTREAM: upstream } })
  t.equal(config.upstream.length, 2)
  t.same(shown(config).upstream, [
    'https://(hidden)@a.example',
    'btfhub+https://(hidden)@b.example/archive',
  ])
  for (const wrong of [
    'a.example',
    'ftp://a',
    'other+https://a',
    'https://a?x=s3cret',
    'https://a#b',
  ])
    t.match(problemsOf({ flags: { upstream: wrong } }), [/^invalid --upstream .*: expected URLs/])
  const refused = problemsOf({ flags: { upstream: 'ftp://me:s3cret@a' } }).join()
  t.notMatch(refused, /s3cret/)
})

t.test(
  'a list is comma-separated in flags and the environment, and an array in the file',
  async (t) => {
    const trustProxy = ['10.0.0.0/8', '::1']
    t.same(configOf({ env: { BTFMILL_TRUST_PROXY: '10.0.0.0/8, ::1' } }).trustProxy, trustProxy)
    t.same(configOf({ file: { 'trust-proxy': trustProxy } }).trustProxy, trustProxy)
  },
)

t.test(
  'all invalid settings are reported at once, each with its place, its value and what is expected',
  async (t) => {
    const layers: Layers = {
      file: { 'rate-limit': '5', nonsense: 1, listen: 'x:y', 'url-limit': 1 },
      env: { BTFMILL_LOG_LEVEL: 'loud', BTFMILL_BODY_CACHE: '1e9' },
      flags: { logRequests: 'maybe', trustProxy: '10.0.0.0/33', read: 'token' },
    }
    const wanted = [
      /^invalid "rate-limit" in the file "5": expected an integer from 0 to \d+$/,
      /^unknown setting "nonsense" in the file$/,
      /^invalid "listen" in the file "x:y": expected HOST:PORT/,
      /^invalid "url-limit" in the file 1: expected a size such as 256M, from 256 to 16K$/,
      /^invalid BTFMILL_LOG_LEVEL "loud": expected one of info, trace, debug, warn, error, silent$/,
      /^invalid BTFMILL_BODY_CACHE "1e9": expected a size such as 256M, from 1M to 1T$/,
      /^invalid --log-requests "maybe": expected true or false$/,
      /^invalid --trust-proxy \["10\.0\.0\.0\/33"\]: expected addresses/,
      /^--read token needs --tokens FILE$/,
    ]
    const problems = problemsOf(layers)
    t.equal(problems.length, wanted.length, problems.join('\n'))
    for (const pattern of wanted)
      t.ok(
        problems.some((problem) => pattern.test(problem)),
        `${pattern}`,
      )
    for (const file of [[], 'x', 1, null])
      t.match(problemsOf({ file }), [/^invalid file: expected a JSON object/])
  },
)

t.test('a size may be written with a unit in every layer, and is shown with one', async (t) => {
  const layers: Layers = {
    file: { 'body-cache': '2M', 'upload-limit': 4096 },
    env: { BTFMILL_JOB_MEMORY: '6g' },
    flags: { redirectAbove: '1500000', scratch: '/var/tmp:20G' },
  }
  const config = configOf(layers)
  t.match(config, {
    ...{ bodyCache: 2 ** 21, uploadLimit: 4096, jobMemory: 6 * 2 ** 30, redirectAbove: 1_500_000 },
    scratch: '/var/tmp:20G',
  })
  t.match(shown(config), {
    ...{
      'body-cache': '2M',
      'upload-limit': '4K',
      'job-memory': '6G',
      'redirect-above': '1500000',
    },
    'task-memory': '256M',
  })
  for (const scratch of ['/x:0', ':0K'])
    t.match(problemsOf({ flags: { scratch } }), [
      /^invalid --scratch .*expected DIR, DIR:SIZE or :SIZE$/,
    ])
  t.same(parseScratch(':3G'), { size: 3 * 2 ** 30 })
  t.same(parseScratch('a:b'), { directory: 'a:b' })
})

t.test('the listen address is a host with a port, a port or a socket', async (t) => {
  for (const listen of [
    '8080',
    ':8080',
    '0.0.0.0:1',
    '[::]:65535',
    '[fe80::1%eth0]:1',
    'a.b-c:0',
    'unix:/run/x',
  ])
    t.equal(configOf({ flags: { listen } }).listen, listen)
  for (const listen of [
    '',
    'host',
    'host:',
    ':::1',
    '::1:80',
    'host:65536',
    'unix:',
    'http://a:1',
    'a b:1',
  ])
    t.equal(problemsOf({ flags: { listen } }).length, 1, listen)
})

t.test('passwords are hidden when settings are shown, and in errors', async (t) => {
  const store =
    's3://key:hunter2@bucket/x?endpoint=http://a:hunter2@b&secret-key=hunter2&region=here'
  const config = shown(configOf({ flags: { store } }))
  t.equal(
    config.store,
    's3://(hidden)@bucket/x?endpoint=http://(hidden)@b&secret-key=(hidden)&region=here',
  )
  t.notMatch(problemsOf({ flags: { listen: store } })[0], /hunter2/)
})

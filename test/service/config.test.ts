// Settings: where they come from, which comes first, what is refused, and what is never shown.
import t from 'tap'
import { type Config, type Layers, readConfig, settings, shown } from '../../service/config.ts'

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
  'flags come before the environment, that before the file, that before the defaults',
  async (t) => {
    const file = { 'rate-limit': 1, 'url-limit': 1001, 'log-requests': false, memory: 2 ** 21 }
    const env = { BTFMILL_RATE_LIMIT: '2', BTFMILL_URL_LIMIT: '1002', PATH: '/bin' }
    const flags = { rateLimit: '3' }
    t.match(configOf({ file, env, flags }), {
      rateLimit: 3,
      urlLimit: 1002,
      logRequests: false,
      memory: 2 ** 21,
      listen: '127.0.0.1:8080',
    })
  },
)

t.test(
  'every setting has one name at each door, and a text that says the default is the default',
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

t.test('lists', async (t) => {
  const trustProxy = ['10.0.0.0/8', '::1']
  t.same(configOf({ env: { BTFMILL_TRUST_PROXY: '10.0.0.0/8, ::1' } }).trustProxy, trustProxy)
  t.same(configOf({ file: { 'trust-proxy': trustProxy } }).trustProxy, trustProxy)
})

t.test('what is wrong is told with where it stands, all at once', async (t) => {
  const layers: Layers = {
    file: { 'rate-limit': '5', nonsense: 1, listen: 'x:y', 'url-limit': 1 },
    env: { BTFMILL_LOG_LEVEL: 'loud', BTFMILL_MEMORY: '1e9' },
    flags: { logRequests: 'maybe', trustProxy: '10.0.0.0/33', read: 'token' },
  }
  const wanted = [
    /^"rate-limit" in the file must be integer: "5"$/,
    /no setting "nonsense"/,
    /^"listen" in the file must be HOST:PORT.*: "x:y"$/,
    /^"url-limit" in the file must be >= 256/,
    /^BTFMILL_LOG_LEVEL must be equal to one of/,
    /^BTFMILL_MEMORY must be integer/,
    /^--log-requests must be boolean: "maybe"$/,
    /^--trust-proxy must be addresses/,
    /needs --tokens/,
  ]
  const problems = problemsOf(layers)
  t.equal(problems.length, wanted.length, problems.join('\n'))
  for (const pattern of wanted)
    t.ok(
      problems.some((problem) => pattern.test(problem)),
      `${pattern}`,
    )
  for (const file of [[], 'x', 1, null]) t.match(problemsOf({ file }), [/not a JSON object/])
})

t.test('where to listen', async (t) => {
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

t.test('secrets are never shown, nor repeated where they are wrong', async (t) => {
  const store =
    's3://key:hunter2@bucket/x?endpoint=http://a:hunter2@b&secret-key=hunter2&region=here'
  const config = shown(configOf({ flags: { store } }))
  t.equal(
    config.store,
    's3://(hidden)@bucket/x?endpoint=http://(hidden)@b&secret-key=(hidden)&region=here',
  )
  t.notMatch(problemsOf({ flags: { listen: store } })[0], /hunter2/)
})

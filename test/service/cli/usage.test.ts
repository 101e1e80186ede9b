// The usage of all commands: help texts, exit status, errors of two lines, pipes that close, completion, and the man page.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { MAIN, run, storeOf } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

const WITH_STORE = [
  ...[
    'generate',
    'worker',
    'import',
    'mirror',
    'serve',
    'list',
    'dump',
    'check',
    'prove',
    'minimize',
    'offsets',
    'diff',
    'search',
    'history',
    'export',
  ],
  ...['verify', 'pack', 'gc', 'rm', 'prune', 'stats', 'index', 'sign', 'sources'],
]
const WITHOUT_STORE = ['token', 'fetch', 'keygen', 'completion']
const COMMANDS = [...WITH_STORE, ...WITHOUT_STORE]

t.test('the main help lists every command in a group, the exit status and examples', async (t) => {
  const { status, stdout } = await run('--help')
  t.equal(status, 0)
  const groups = [...stdout.matchAll(/^(Make|Serve|Use|Keep|Get) .*:\n((?: {2}.*\n)+)/gm)]
  t.same(
    groups.map(([, group]) => group),
    ['Make', 'Serve', 'Use', 'Keep', 'Get'],
  )
  const listed = groups.flatMap(([, , lines = '']) => [...lines.matchAll(/^ {2}(\w+) {2,}\S/gm)])
  t.same(listed.map(([, name]) => name).sort(), [...COMMANDS, 'help'].sort())
  t.match(stdout, /\nExit status:\n {2}0 .*\n {2}1 .*\n {2}2 {2}wrong usage\n {2}3 .*cannot tell\n/)
  t.match(stdout, '\nExamples:\n  btfmill ')
  t.same(await run('--version'), { status: 0, stdout: '0.1.0\n', stderr: '' })
})

t.test(
  "each help names every option's default, has examples, and --store where it is used",
  async (t) => {
    for (const command of COMMANDS) {
      const { status, stdout } = await run(command, '--help')
      t.equal(status, 0, command)
      t.equal(
        stdout.match(/^ {2}--store /gm)?.length ?? 0,
        WITH_STORE.includes(command) ? 1 : 0,
        command,
      )
      t.match(stdout, `\nExamples:\n  btfmill ${command}`)
      // an option with its description, to where the next begins
      for (const [option] of stdout.matchAll(/^ {2}(?:-\w, )?--[\w-]+ <[\s\S]*?(?=^ {2}-|\n\n)/gm))
        t.match(
          option.replace(/\s+/g, ' '),
          /\((?:.*, )?default: |\(required/,
          `${command}: ${option}`,
        )
    }
  },
)

t.test('wrong usage ends with 2 and two lines: the reason, and where to find help', async (t) => {
  const cases = [
    [[], 'no command given'],
    [['lst'], "unknown command 'lst' (did you mean list?)"],
    [['list', '--sotre', 'x'], "unknown option '--sotre' (did you mean --store?)"],
    [['list', '--version'], "unknown option '--version'"],
    [['list', 'extra'], 'too many arguments'],
    [['generate', '--jobs', 'x'], 'invalid --jobs "x": expected an integer from 1 to 256'],
    [['generate', '--job-memory', '6X'], 'invalid --job-memory "6X": expected a size such as 256M'],
    [['generate', '--limit', '0'], 'invalid --limit "0": expected an integer from 1'],
    [['generate', '--detach'], '--detach needs --queue URL'],
    [['worker'], "required option '--queue <url>'"],
    [['serve', '--listen', 'x:y'], 'invalid --listen "x:y": expected HOST:PORT'],
    [['serve', '--log-level', 'loud'], 'invalid --log-level "loud": expected one of info, '],
    [['serve', '--rate-limit', '-1', '--grace', 'x'], /invalid --rate-limit .*; invalid --grace /],
    [['token', 'x', '--scope', 'all'], 'invalid --scope "all": expected one of read, '],
    [['dump'], "missing required argument 'kernel'"],
    [['export'], 'export needs --profile NAME, or --verify FILE'],
    [['completion', 'ksh'], 'invalid shell "ksh": expected one of zsh, bash, fish'],
    [['list', '--\u001b[2J'], "unknown option '--?[2J'"],
  ] as const
  for (const [args, reason] of cases) {
    const { status, stdout, stderr } = await run(...args)
    const [first = '', second, ...rest] = stderr.split('\n')
    const name = args.length === 0 || args[0] === 'lst' ? 'btfmill' : `btfmill ${args[0]}`
    t.same([status, stdout, rest], [2, '', ['']], args.join(' '))
    t.match(first, reason)
    t.match(first, /^btfmill: /)
    t.equal(second, `Run "${name} --help" for usage.`)
  }
})

t.test('an invalid variable is wrong usage too, and names the variable', async (t) => {
  const child = spawn(process.execPath, [MAIN, 'generate'], {
    env: { ...process.env, BTFMILL_JOBS: 'x' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const [stderr, [status]] = await Promise.all([text(child.stderr), once(child, 'close')])
  t.equal(status, 2)
  t.match(stderr, /^btfmill: invalid BTFMILL_JOBS "x": expected an integer from 1 to 256\n.*\n$/)
})

t.test('a command leaves standard output open for the next one of a script', async (t) => {
  const store = await storeOf(join(t.testdir(), 'store'), [
    { machine: 'x86_64', release: '6.1.0-1' },
  ])
  // node gives children a socket, which whoever ends it ends for all
  const script = '"$0" "$1" list --store "$2" --json; echo second'
  const child = spawn('sh', ['-c', script, process.execPath, MAIN, store], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.match(await text(child.stdout), /"release":"6\.1\.0-1".*\nsecond\n$/)
})

t.test('a closed pipe ends every command without a message', async (t) => {
  const x86 = littleKernels().get('x86_64')!
  const task = coreObjects('el').get('task')!
  const store = await storeOf(join(t.testdir(), 'store'), [
    { machine: 'x86_64', release: '6.1.0-1' },
  ])
  const tokens = join(t.testdirName, 'tokens.json')
  writeFileSync(join(t.testdirName, 'none'), '')
  const ended = async (closed: 'stdout' | 'stderr', ...args: string[]) => {
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    child[closed].destroy()
    const other = closed === 'stdout' ? child.stderr : child.stdout
    const [said, [status]] = await Promise.all([text(other), once(child, 'close')])
    return { status, said }
  }
  const own = { said: '', status: 0 } // its own exit status
  const cut = { said: '', status: 141 } // as SIGPIPE ends a program
  const cases = [
    [own, 'list', '--store', store],
    [own, 'list', '--store', store, '--json'],
    [own, 'dump', x86],
    [own, 'dump', x86, '--json'],
    [own, 'sources'],
    [own, 'sources', '--json'],
    [{ ...own, status: 1 }, 'diff', x86, littleKernels().get('i686')!],
    [cut, 'check', task, '--btf', x86],
    [cut, 'verify', '--store', store],
    [cut, 'gc', '--store', store],
    [cut, 'token', 'x', '--tokens', tokens],
    [cut, 'generate', '--json', '--store', store, join(t.testdirName, 'none')],
    [cut, 'list', '--help'],
  ] as const
  for (const [wanted, ...args] of cases)
    t.same(await ended('stdout', ...args), wanted, args.join(' '))
  t.same(await ended('stderr', 'list', '--unknown'), cut)
})

t.test('completion prints a script that each shell can parse', async (t) => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { status, stdout } = await run('completion', shell)
    t.equal(status, 0)
    t.match(stdout, 'btfmill complete')
    const script = join(t.testdir(), `script.${shell}`)
    writeFileSync(script, stdout)
    execFileSync(shell, ['-n', script])
  }
})

t.test('completion knows commands, options and choices', async (t) => {
  const completions = async (...words: string[]) => {
    const { stdout } = await run('complete', '--', ...words)
    return stdout.split('\n').map((line) => line.split('\t')[0])
  }
  t.match(await completions('gen'), ['generate', ':4'])
  const commands = await completions('')
  for (const command of COMMANDS) t.ok(commands.includes(command), command)
  t.ok((await completions('list', '--dis')).includes('--distro-version'))
  t.match(await completions('export', '--profile', ''), ['btfhub', 'bcc', 'inspektor-gadget'])
  t.match(await completions('completion', 'ba'), ['bash'])
})

t.test('bash completes a command with the script', async (t) => {
  const { stdout } = await run('completion', 'bash')
  const script = join(t.testdir(), 'script.bash')
  // in place of the functions of the package bash-completion
  const complete = `
    btfmill() { "${process.execPath}" "${MAIN}" "$@"; }
    _get_comp_words_by_ref() { cur=verif prev=btfmill cword=1; words=(btfmill verif); }
    compopt() { :; }
    source "${script}"
    COMP_WORDS=(btfmill verif) COMP_CWORD=1
    $(complete -p btfmill | sed 's/.*-F \\([^ ]*\\).*/\\1/') btfmill verif btfmill
    echo "\${COMPREPLY[@]}"`
  writeFileSync(script, stdout)
  t.match(execFileSync('bash', ['-c', complete], { encoding: 'utf8' }), /^verify/)
})

t.test('the man page names every command with its options, and groff finds no fault', async (t) => {
  const page = join(t.testdir(), 'man/btfmill.1')
  execFileSync('sh', [join(MAIN, '../man.sh'), page])
  t.match(readFileSync(page, 'utf8'), /^\.TH BTFMILL "?1"? /m)
  const groff = (...args: string[]) =>
    execFileSync('sh', ['-c', 'groff -man -Tutf8 -P-cbou -ww "$@" 2>&1', 'groff', page, ...args], {
      encoding: 'utf8',
    })
  const shown = groff()
  t.notMatch(shown, /warning|error:/)
  for (const command of COMMANDS) t.match(shown, `Usage: btfmill ${command} `)
  t.match(shown, '--distro-version <version>')
})

/* The program that the commands belong to: its help, its errors, and how a command is added and run. */
import { Command, InvalidArgumentError } from 'commander'
import { VERSION } from '../version.ts'
import { printable } from './output.ts'

const EXIT_STATUS = `
Exit status:
  0  done
  1  failed, in part or as a whole; for diff also: the kernels differ
  2  wrong usage
  3  reserved for check: cannot tell`

/** Puts an error of commander's on one line, in the form of all other errors. */
const outputError = (text: string, write: (text: string) => void): void => {
  const line = text
    .replace(/^error: /, '')
    .replace(
      /^option '(?:-\w, )?(--[\w-]+)[^']*' argument '(.*)' is invalid\. /s,
      'invalid $1 "$2": ',
    )
    .replace(/^option .* value '(.*)' from env '(\w+)' is invalid\. /s, 'invalid $2 "$1": ')
    .replace(
      /^command-argument value '(.*)' is invalid for argument '(\S+)'\. /s,
      'invalid $2 "$1": ',
    )
    .replace(/Allowed choices are (.*)\.$/m, 'expected one of $1')
    .replace(/\n\(Did (.*)\)/, ' (did $1)')
    .trim()
  write(`btfmill: ${printable(line)}\n`)
}

export const program = new Command('btfmill')
  .description('BTF for Linux kernels that were built without it: make it, keep it, serve it.')
  .version(VERSION, '--version', 'print the version of btfmill')
  .helpOption('-h, --help', 'print this help')
  .usage('COMMAND [options]')
  .configureHelp({ subcommandTerm: (command) => command.name() })
  .configureOutput({ outputError })
  .exitOverride()
  .enablePositionalOptions() // `list --version` is a mistake, not a request for the version
  .showHelpAfterError('Run "btfmill --help" for usage.')
  .addHelpText(
    'after',
    `${EXIT_STATUS}

Examples:
  btfmill generate --distro debian --distro-version 12 --limit 1
  btfmill list
  btfmill serve --listen 127.0.0.1:8080
  btfmill check agent.bpf.o

Run "btfmill COMMAND --help" for the options of a command.`,
  )

/** A command under the current heading, with the examples at the end of its help. */
export function command(
  name: string,
  summary: string,
  description: string,
  ...examples: string[]
): Command {
  return describe(program.command(name), summary, description, examples)
}

/** The summary goes into the main help and into completions, the description into the command's own help. */
export function describe(
  to: Command,
  summary: string,
  description: string,
  examples: readonly string[],
): Command {
  const lines = examples.map((example) => `\n  btfmill ${example}`).join('')
  return to
    .description(summary)
    .configureHelp({ commandDescription: () => description })
    .showHelpAfterError(`Run "btfmill ${to.name()} --help" for usage.`)
    .addHelpText('after', lines && `\nExamples:${lines}`)
}

/** The code of a command: `run` takes the arguments and the options, and returns the exit status. */
// biome-ignore lint/suspicious/noExplicitAny: commander gives arguments and options without their types
type LoadCommand = () => Promise<{ run(...args: any[]): Promise<number> }>

export function runs(to: Command, load: LoadCommand): void {
  to.action(async (...args: unknown[]) => {
    args.pop() // the command itself
    try {
      process.exitCode = await (await load()).run(...args)
    } catch (error) {
      if (error instanceof InvalidArgumentError) to.error(`error: ${error.message}`)
      throw error
    }
  })
}

// What a guest's console says. init.sh and the agent write lines `WHO: text`; the agent's claims about a process and
// the shell's own are of one form, so that the host can compare them.

/** A process, as the agent's program saw its execve() or as the shell in it knows it. */
export interface Process {
  pid: number
  parent: number
  comm: string
}

export interface Console {
  /** the guest's `uname -r` */
  release: string | undefined
  /** exit status of the agent; undefined where it was never run or never ended */
  agentStatus: number | undefined
  /** all that the agent and libbpf said */
  agent: string[]
  /** all that btf-fetch said */
  fetch: string[]
  /** the processes that the agent reported */
  reported: Process[]
  /** the processes that told of themselves */
  started: Process[]
}

const PROCESS = /^(?:exec )?pid=(\d+) parent=(\d+) comm=(.+)$/

/** Reads the lines of a guest's console; the kernel's own lines among them are passed over. */
export function readConsole(lines: readonly string[]): Console {
  const said = (who: string) =>
    lines.filter((line) => line.startsWith(`${who}: `)).map((line) => line.slice(who.length + 2))
  const agent = said('agent')
  const shell = said('shell')
  return {
    release: value(shell, /^uname (\S+)$/),
    agentStatus: number(value(agent, /^exit (\d+)$/)),
    agent,
    fetch: said('fetch'),
    reported: agent.flatMap(process),
    started: shell.flatMap(process),
  }
}

const value = (lines: string[], pattern: RegExp): string | undefined =>
  lines.map((line) => pattern.exec(line)?.[1]).find((match) => match !== undefined)

const number = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text)

const process = (line: string): Process[] => {
  const [, pid, parent, comm] = PROCESS.exec(line) ?? []
  return pid && parent && comm ? [{ pid: Number(pid), parent: Number(parent), comm }] : []
}

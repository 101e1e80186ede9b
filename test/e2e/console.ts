// Reads a guest's console. init.sh runs the agent several times; the output of agent, btf-fetch and shell in a run comes
// as lines `[RUN] text`. Agent and shell describe a process in the same form, so the host can compare them.

/** A process, as the agent's program saw its execve(), or as the shell in it describes itself. */
export interface Process {
  pid: number
  comm: string
  parent: number
  /** state of the parent, as ps shows it: R, S, … */
  state: string
  /** CPU of the parent; -1 if the kernel does not tell */
  cpu: number
}

export interface Run {
  /** exit status of the agent; undefined if it never ended */
  status: number | undefined
  /** output of agent, libbpf and btf-fetch, stdout and stderr */
  said: string[]
  /** the processes that the agent reported */
  reported: Process[]
  /** the processes that described themselves */
  started: Process[]
}

export interface Console {
  /** the guest's `uname -r` */
  release: string | undefined
  /** true if the guest's kernel has BTF of its own */
  embedded: boolean
  /** by name, in the order of their starts */
  runs: Map<string, Run>
}

const PROCESS = /^(?:exec|shell:) pid=(\d+) comm=(\S+) parent=(\d+) state=(\S) cpu=(-?\d+)$/

/** Reads the lines of a guest's console. Ignores the kernel's own lines. */
export function readConsole(lines: readonly string[]): Console {
  const byRun = new Map<string, string[]>()
  for (const line of lines) {
    const [, run, text] = /^\[(\w+)\] (.*)$/.exec(line) ?? []
    if (run !== undefined && text !== undefined) byRun.set(run, [...(byRun.get(run) ?? []), text])
  }
  return {
    release: value(lines, /^uname (\S+)$/),
    embedded: lines.includes('the kernel has BTF'),
    runs: new Map([...byRun].map(([run, texts]) => [run, readRun(texts)])),
  }
}

function readRun(texts: string[]): Run {
  const ofShell = (text: string) => text.startsWith('shell: ')
  const status = value(texts, /^exit (\d+)$/)
  return {
    status: status === undefined ? undefined : Number(status),
    said: texts.filter((text) => !ofShell(text)),
    reported: texts.filter((text) => !ofShell(text)).flatMap(process),
    started: texts.filter(ofShell).flatMap(process),
  }
}

const value = (lines: readonly string[], pattern: RegExp): string | undefined =>
  lines.map((line) => pattern.exec(line)?.[1]).find((match) => match !== undefined)

const process = (text: string): Process[] => {
  const [, pid, comm, parent, state, cpu] = PROCESS.exec(text) ?? []
  return pid && comm && parent && state && cpu
    ? [{ pid: Number(pid), comm, parent: Number(parent), state, cpu: Number(cpu) }]
    : []
}

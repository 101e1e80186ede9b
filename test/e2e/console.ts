// What a guest's console says. init.sh runs the agent several times; what agent, btf-fetch and shell say in a run are
// lines `[RUN] text`. The agent's claims about a process and the shell's own are of one form, so that the host can
// compare them.

/** A process, as the agent's program saw its execve() or as the shell in it knows it. */
export interface Process {
  pid: number
  comm: string
  parent: number
  /** what the parent did meanwhile: R, S, … as ps shows it */
  state: string
  /** of the parent; -1 where the kernel does not tell */
  cpu: number
}

export interface Run {
  /** exit status of the agent; undefined where it never ended */
  status: number | undefined
  /** all that agent, libbpf and btf-fetch said, on either output */
  said: string[]
  /** the processes that the agent reported */
  reported: Process[]
  /** the processes that told of themselves */
  started: Process[]
}

export interface Console {
  /** the guest's `uname -r` */
  release: string | undefined
  /** does the guest's kernel say that it carries BTF? */
  embedded: boolean
  /** by name, in the order in which they began */
  runs: Map<string, Run>
}

const PROCESS = /^(?:exec|shell:) pid=(\d+) comm=(\S+) parent=(\d+) state=(\S) cpu=(-?\d+)$/

/** Reads the lines of a guest's console; the kernel's own lines among them are passed over. */
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

/* The output of load.c as values. */

export interface LoaderReport {
  /** its version */
  libbpf: string
  /** of loading the object as a whole: 0, or a negative errno value */
  error: number
  /** what libbpf and the verifier said about the object as a whole */
  log: string[]
  programs: LoadedProgram[]
}

export interface LoadedProgram {
  name: string
  section: string
  /** of loading it: 0, or a negative errno value */
  error: number
  /** of attaching it; absent if that was not tried */
  attachError?: number
  /** what libbpf and the verifier said about this program alone */
  log: string[]
}

/** Reads the lines that load.c prints; undefined if it ended before it had a result. */
export function readLoaderReport(lines: readonly string[]): LoaderReport | undefined {
  const programs: LoadedProgram[] = []
  let libbpf = ''
  let whole: Pick<LoaderReport, 'error' | 'log'> | undefined
  for (const line of lines) {
    const [word, ...fields] = line.split('\t')
    const [first = '', section = '', error = '', attachError = ''] = fields
    if (word === 'libbpf') libbpf = first
    else if (word === 'object') whole = { error: Number(first), log: [] }
    else if (word === 'program')
      programs.push({
        name: first,
        section,
        error: Number(error),
        ...(attachError !== '-' && { attachError: Number(attachError) }),
        log: [],
      })
    else if (word === 'log') (programs.at(-1) ?? whole)?.log.push(fields.join(' '))
  }
  return whole && { libbpf, ...whole, programs }
}

/* Small ELF executables, linked from C or assembler by real compilers, for readers of symbols and DWARF. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Compiles each source on its own with a command, and links all into one executable. Returns its bytes. */
export function linked(sources: readonly string[], suffix: 'c' | 's', command: string[]): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'linked-'))
  try {
    const objects = sources.map((source, n) => {
      const [file, object] = [join(folder, `${n}.${suffix}`), join(folder, `${n}.o`)]
      writeFileSync(file, source)
      execFileSync(command[0]!, [...command.slice(1), '-c', file, '-o', object])
      return object
    })
    const out = join(folder, 'out')
    execFileSync('ld.lld', ['--entry=0', '--unresolved-symbols=ignore-all', ...objects, '-o', out])
    return readFileSync(out)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

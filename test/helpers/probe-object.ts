/* BPF objects whose programs do nothing but be attached. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Compiles an object with a program for each section, by the programs' names. */
export function probeObject(sections: Readonly<Record<string, string>>): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'probe-'))
  const source = Object.entries(sections)
    .map(([name, section]) => {
      return `__attribute__((section("${section}"), used)) int ${name}(void *ctx) { return 0; }`
    })
    .join('\n')
  try {
    const path = join(folder, 'probe.o')
    const options = ['--target=bpfel', '-g', '-O2', '-x', 'c', '-c', '-', '-o', path]
    execFileSync('clang', options, { input: source })
    return readFileSync(path)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

// The variables and the apt configuration that name proxies, for the time of a test.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

const NAMES = ['http_proxy', 'https_proxy', 'no_proxy'].flatMap((name) => [
  name,
  name.toUpperCase(),
])
const ORIGINAL: Readonly<Record<string, string | undefined>> = { ...process.env }

/** Sets these variables and removes all others that name proxies. After the test all are as at the start. */
export function setVariables(t: Test, variables: Readonly<Record<string, string>>): void {
  const set = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
  for (const name of NAMES) set(name, variables[name])
  set('PATH', variables.PATH ?? ORIGINAL.PATH)
  t.teardown(() => {
    for (const name of [...NAMES, 'PATH']) set(name, ORIGINAL[name])
  })
}

/** A PATH whose first directory has an apt-config that prints this configuration. */
export function aptWith(t: Test, configuration: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'btfmill-apt-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const script = `#!/bin/sh\ncat <<'END'\n${configuration}\nEND\n`
  writeFileSync(join(directory, 'apt-config'), script, { mode: 0o755 })
  return `${directory}:${ORIGINAL.PATH}`
}

// A worker for the tests of the pool: its tasks are those that a pool must not let pass.
import { appendFileSync } from 'node:fs'
import type { Tasks } from '../../service/threads/worker.ts'

type Task = Parameters<Tasks['minimize']>[0]

/** Never ends; before that it says so in the file that its first object names. */
export function open({ objects: [file] }: Task): never {
  appendFileSync(Buffer.from(file!).toString(), 'started\n')
  for (;;);
}

/** Takes memory until there is none. */
export function check(): unknown[] {
  const all: unknown[] = []
  for (;;) all.push(all.map((each) => [each]))
}

/** Fails as nothing that parses should. */
export function derive(): never {
  throw new TypeError('a defect')
}

/** Behaves. */
export function minimize({ btf }: Task) {
  return { value: btf }
}

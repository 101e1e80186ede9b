// A worker for the tests of the pool. Its tasks exceed the limits, or fail with a defect.
import { appendFileSync } from 'node:fs'
import type { Tasks } from '../../service/threads/worker.ts'

type Task = Parameters<Tasks['minimize']>[0]

/** Never ends. First it writes a line to the file that its first object names. */
export function open({ objects: [file] }: Task): never {
  appendFileSync(Buffer.from(file!).toString(), 'started\n')
  for (;;);
}

/** Allocates memory without end. */
export function check(): unknown[] {
  const all: unknown[] = []
  for (;;) all.push(all.map((each) => [each]))
}

/** Throws an error that no task may throw. */
export function derive(): never {
  throw new TypeError('a defect')
}

/** Works. */
export function minimize({ btf }: Task) {
  return { value: btf }
}

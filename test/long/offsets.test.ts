// The Go source that `btfmill offsets` prints, for Go's own tools.
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { run, storeOf } from '../helpers/command.ts'

const start = promisify(execFile)

t.test(
  'gofmt and go vet accept the Go source of offsets, and a program finds a value in it',
  async (t) => {
    const directory = t.testdir({ offsets: {} })
    const at = (name: string) => join(directory, name)
    const store = await storeOf(at('store'), [
      { machine: 'x86_64', release: '6.1.0-1' },
      { machine: 'i686', release: '5.10.0-1+deb11' },
    ])
    const list = at('list')
    writeFileSync(list, 'task_struct.pid\ngone = task_struct.gone\nflag = task_struct.in_iowait\n')
    const { status, stdout } = await run('offsets', list, '--store', store, '--format', 'go')
    t.equal(status, 0)
    mkdirSync(at('offsets'), { recursive: true })
    writeFileSync(at('offsets/offsets.go'), stdout)
    writeFileSync(at('go.mod'), 'module example\n\ngo 1.18\n')
    writeFileSync(
      at('main.go'),
      `package main

import (
	"example/offsets"
	"fmt"
)

func main() {
	for _, kernel := range offsets.Kernels {
		row := offsets.Rows[kernel.Row]
		fmt.Println(kernel.Release, row[offsets.Name_task_struct_pid], row[offsets.Name_gone].Kind == offsets.KindMissing)
	}
}
`,
    )
    t.equal((await start('gofmt', ['-l', '.'], { cwd: directory })).stdout, '')
    await start('go', ['vet', './...'], { cwd: directory })
    const printed = (await start('go', ['run', '.'], { cwd: directory })).stdout
    t.match(printed, /^5\.10\.0-1\+deb11 \{\d+ 1 0\} true\n6\.1\.0-1 \{64 1 0\} true\n$/)
  },
)

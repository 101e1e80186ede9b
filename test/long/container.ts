/*
 * Containers without a container engine: the parts of `docker run --read-only --user` that an image must cope with, done
 * with the kernel's own means. A container is an image's root, read-only, in separate namespaces for mounts, processes and
 * the network, with the image's user and environment. Needs root.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The runtime part of an image's configuration. */
interface Config {
  User: string
  Env: string[]
  Entrypoint: string[]
  Cmd: string[]
  WorkingDir: string
  Healthcheck?: { Test: string[] }
  ExposedPorts?: Record<string, object>
  Volumes?: Record<string, object>
}

/** buildah with its storage below a directory. `words` is the command line for scripts. */
export class Builder {
  readonly words: string

  constructor(dir: string) {
    this.words = `buildah --storage-driver vfs --root ${dir}/images --runroot ${dir}/run`
  }

  /** Runs a buildah command and returns its output. Rejects with its messages. */
  async run(...args: string[]): Promise<string> {
    const [program = '', ...words] = [...this.words.split(' '), ...args]
    const { stdout } = await run(program, words, { timeout: 1_200_000, maxBuffer: 1 << 26 })
    return stdout.trim()
  }

  /** Mounts an image's root. */
  async open(name: string): Promise<Image> {
    const container = await this.run('from', name)
    const root = await this.run('mount', container)
    const inspected = JSON.parse(await this.run('inspect', '--type', 'image', name))
    return new Image(root, inspected.Docker.config)
  }
}

const ENTER = `
  set -eu
  root=$1 user=$2 directory=$3 data=$4
  shift 4
  ip link set lo up
  mount --make-rprivate /
  mount --bind "$root" "$root"
  mount -o remount,bind,ro "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/tmp"
  mount --bind "$data" "$root/data"
  cd "$root"
  exec chroot --userspec="$user" "$root" /usr/bin/env --ignore-environment --chdir="$directory" "$@"`

export class Image {
  readonly root: string
  readonly config: Config

  constructor(root: string, config: Config) {
    this.root = root
    this.config = config
  }

  /** Starts a container with `data` as its /data (default command: the image's). */
  start(data: string, command: readonly string[] = this.config.Cmd): ChildProcess {
    const { User, Env, Entrypoint, WorkingDir } = this.config
    const namespaces = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']
    return spawn(
      'unshare',
      [
        ...namespaces,
        ...['sh', '-c', ENTER, 'sh', this.root, User, WorkingDir, data],
        ...[...Env, ...Entrypoint, ...command],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
  }

  /** Runs a container to its end and returns its output. Rejects with all output if it does not exit 0. */
  async run(data: string, command: readonly string[]): Promise<string> {
    const child = this.start(data, command)
    const [[status], stdout, stderr] = await Promise.all([
      once(child, 'close'),
      text(child.stdout!),
      text(child.stderr!),
    ])
    if (status === 0) return stdout
    throw new Error(`${command.join(' ')} ended with ${status}\n${stdout}${stderr}`)
  }

  /** The same, with another program instead of the image's entry point. */
  runProgram(data: string, program: readonly string[]): Promise<string> {
    return new Image(this.root, { ...this.config, Entrypoint: [] }).run(data, program)
  }
}

/** Makes a directory that the image's user can write to. */
export async function dataFor({ config }: Image, dir: string): Promise<string> {
  const data = await mkdtemp(join(dir, 'data-'))
  await run('chown', [config.User, data])
  return data
}

/** Returns the id of the first process in the namespaces of an `unshare --fork`. */
export async function processIn(child: ChildProcess): Promise<number> {
  const { stdout } = await run('cat', [`/proc/${child.pid}/task/${child.pid}/children`])
  return Number(stdout.trim())
}

/*
 * Writes a tar as a stream with backpressure: an entry is pulled from the source only when the reader has taken the last
 * one. The output depends on the entries only.
 */
import { type Pack, pack } from 'tar-stream'

/** A regular file, a hard link to an earlier file, or a directory. */
export type TarEntry =
  | { kind: 'file'; path: string; content: Buffer }
  | { kind: 'link'; path: string; target: string }
  | { kind: 'directory'; path: string }

const OWNER = { uid: 0, gid: 0, uname: 'root', gname: 'root', mtime: new Date(0) }
const FILE_MODE = 0o444
const DIRECTORY_MODE = 0o755

/** Yields the bytes of a tar; each header is its own chunk. Errors: those of `entries`. */
export async function* tarOf(entries: AsyncIterable<TarEntry>): AsyncGenerator<Buffer> {
  const tar = pack()
  const feeding = feed(tar, entries).catch((error: Error) => tar.destroy(error))
  try {
    yield* tar as AsyncIterable<Buffer>
  } finally {
    tar.destroy()
    await feeding
  }
}

async function feed(tar: Pack, entries: AsyncIterable<TarEntry>): Promise<void> {
  for await (const entry of entries) await add(tar, entry)
  tar.finalize()
}

function add(tar: Pack, entry: TarEntry): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: Error | null) => (error ? reject(error) : resolve())
    const { kind, path: name } = entry
    if (kind === 'file') {
      const size = entry.content.length
      tar.entry({ ...OWNER, name, mode: FILE_MODE, size }, entry.content, done)
    } else if (kind === 'link') {
      const linkname = entry.target
      tar.entry({ ...OWNER, name, mode: FILE_MODE, type: 'link', linkname, size: 0 }, done)
    } else {
      tar.entry({ ...OWNER, name: `${name}/`, mode: DIRECTORY_MODE, type: 'directory' }, done)
    }
  })
}

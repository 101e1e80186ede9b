/* A service with a few kernels for tests of its pages, some with names that would run as scripts if they were not escaped. */
import { readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { type BtfType, encodeBtf, FunctionList, parseBtf } from '../../bpf/index.ts'
import type { AppOptions } from '../../service/index.ts'
import { type BuildRecord, putSourceResult, putSymbols, type Store } from '../../storage/index.ts'
import { littleKernels, wholeKernel } from './core.ts'
import { btfOf, recordOf, startTestService, type TestService } from './test-service.ts'

/** Text that calls `hit` where a page takes it for HTML. */
export const HOSTILE = '"><img src=x onerror=hit()><script>hit()</script>'
/** The same for a release, which has no slashes. */
export const HOSTILE_RELEASE = `5.3.0"><img src=x onerror=hit()><script>hit()<'`
export const BUILD_ID = 'ab'.repeat(20)

const kernelBytes = (arch: string): Buffer => readFileSync(littleKernels().get(arch)!)

/** A kernel with a function, and a type whose name and members are hostile. */
function hostileKernel(): Buffer {
  const small = parseBtf(kernelBytes('x86_64'))
  const types: BtfType[] = [...wholeKernel(small, ['vfs_read', 'task_struct_of']).types()]
  const int = small.find('int')!
  const add = (type: BtfType) => types.push({ ...type, id: types.length + 1 } as BtfType)
  const members = [HOSTILE, 'plain'].map((name, i) => {
    return { name, type: int, bitOffset: i * 64, bitfieldSize: 0 }
  })
  const hostile = { kind: 'STRUCT', id: 0, name: HOSTILE, size: 24, flag: false, members } as const
  const id = add(hostile)
  add({ kind: 'TYPEDEF', id: 0, name: 'hostile_t', type: id, flag: false })
  return Buffer.from(encodeBtf(types, { byteOrder: 'little' }))
}

const FAILURE = {
  code: 'no_dwarf',
  message: `vmlinux has no DWARF ${HOSTILE}`,
  log: 'secret',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

/** Records of three series, with kernels in all states. */
export async function pageRecords(store: Store): Promise<BuildRecord[]> {
  const [hostile, big, old] = await Promise.all(
    [hostileKernel(), kernelBytes('s390x'), kernelBytes('x86_64')].map((raw) => btfOf(store, raw)),
  )
  const list = new Map([
    ['vfs_read', new Set<'inlined'>(['inlined'])],
    ['vfs_read.isra.0', new Set<'inlined'>()],
  ])
  const functions = FunctionList.of(list)
  const symbols = { ...(await putSymbols(store, functions.encode())), functions: functions.size }
  await putSourceResult(store, {
    schema: 1,
    source: 'debian',
    suite: 'bookworm',
    url: 'http://user:secret@127.0.0.1/debian',
    failure: { ...FAILURE, code: 'unreachable' },
  })
  const release = (name: string) => ({ release: name })
  return [
    recordOf(
      { ...release('6.1.0-2-amd64'), buildId: BUILD_ID, unameVersion: `#1 ${HOSTILE}` },
      { btf: hostile!, symbols, embedded: false },
    ),
    recordOf(release('6.1.0-1-amd64'), { btf: old! }),
    recordOf(release('6.0.0-9-amd64'), { btf: old!, origin: 'embedded', embedded: true }),
    recordOf(release('5.10.0-1-amd64'), { embedded: true }),
    recordOf(release('5.4.0-1-amd64'), { failure: FAILURE }),
    recordOf(release(HOSTILE_RELEASE), { failure: FAILURE }),
    recordOf(
      { version: '11', arch: 's390x', ...release('6.1.0-2-s390x') },
      {
        btf: big!,
        takenFrom: [
          {
            ...{ kind: 'btfmill', url: 'http://btf.example', vouched: 'signature' },
            takenAt: '2026-11-02T12:00:00.000Z',
          },
        ],
      },
    ),
  ]
}

/** The newest kernel's page. */
export const NEWEST = '/kernels/debian/12/x86_64/6.1.0-2-amd64'

export const startPageService = (
  t: Test,
  options: Partial<AppOptions> = {},
): Promise<TestService> => startTestService(t, pageRecords, options)

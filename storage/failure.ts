import Type from 'typebox'

/** When a failed package is tried again; `FAILURE_CODES` explains the values. */
export type RetryClass = 'never' | 'later' | 'now'

/**
 * The closed list of failures on the way from a package to its BTF, each with its retry class. `never`: the same
 * package fails again until btfmill or pahole changes. `later`: the cause may go away, so retries come with growing
 * pauses. `now`: the next run tries again at once.
 */
export const FAILURE_CODES = {
  // the source
  unreachable: 'later', // no connection, or 5xx after all retries
  no_access: 'now', // the certificate or credentials that open the source are not on this machine
  not_found_upstream: 'later', // 404 or 410: the index still lists what the server no longer has
  stalled: 'later', // the server stopped sending
  invalid_signature: 'later', // InRelease, repomd.xml or an RPM header is not signed by a key of the keyring
  no_keyring: 'now', // no keyring that could check the signature is on this machine
  invalid_key: 'now', // a file of OpenPGP keys that does not parse; no record has it
  untrusted_key: 'now', // a file of OpenPGP keys without any of the expected fingerprints; no record has it
  expired_signature: 'later', // Valid-Until has passed, or the signing key expired
  invalid_index: 'later', // an index that does not parse
  index_mismatch: 'later', // an index file is not the one the signed index names
  // the package
  truncated: 'later', // the body ended early, and so did each resumed download
  digest_mismatch: 'later', // the package is not the one the signed index names
  invalid_package: 'never', // ar, tar, cpio, xz, zstd or gzip that does not decode
  unsupported_package: 'never', // a format or compression that btfmill does not read
  no_vmlinux: 'never', // a shim, a metapackage or a new layout; the message names the expected file
  no_module: 'never', // the package has no such module: it is built in or in another package
  too_large: 'never', // over a size limit, as archive bombs are
  // vmlinux
  invalid_elf: 'never', // vmlinux does not parse
  no_dwarf: 'never', // vmlinux has no .debug_info
  no_symbols: 'never', // vmlinux has no symbol table, so its functions are not known
  no_btf: 'never', // the kernel has no .BTF section, and the package offers no other way to BTF
  kernel_mismatch: 'never', // the image or module is of another kernel than its package says
  // pahole and its result
  pahole_missing: 'now', // not installed, or too old
  pahole_crashed: 'never', // ended by a signal
  pahole_failed: 'never', // non-zero exit status, or no BTF
  pahole_out_of_memory: 'later', // over its memory limit
  pahole_timeout: 'later', // over its time limit
  ambiguous_types: 'never', // a struct that most programs read, such as task_struct, has several layouts
  invalid_btf: 'never', // our reader rejects the result, or it lacks types that every kernel has
  // headers, and the compiler for them
  invalid_headers: 'never', // not the headers of a kernel, or not all of them, or files that contradict each other
  random_layout: 'never', // CONFIG_RANDSTRUCT: headers do not tell the layouts
  headers_failed: 'later', // too few headers compile; another compiler may do better
  headers_limit: 'later', // the compiler needed more time, memory or output than it may use
  compiler_mismatch: 'now', // no installed compiler takes the options that layouts depend on
  layout_mismatch: 'now', // the compiled layouts differ from offsets that the kernel's build wrote down
  // the proof of an object on a kernel; no record has these
  no_image: 'later', // no source has the package with the image of this kernel
  unsupported_machine: 'never', // a guest cannot have this architecture
  qemu_missing: 'now', // not installed
  qemu_failed: 'now', // QEMU, or the kernel in it, ended early
  guest_timeout: 'now', // over its time limit
  compiler_missing: 'now', // clang, or another compiler for this architecture, is not installed
  compiler_failed: 'now', // it did not compile the loader
  invalid_loader: 'never', // the user's own loader cannot run in the guest
  // the store
  damaged_blob: 'now', // the stored BTF was damaged or lost, and must be made again
  // the machine
  no_space: 'now', // scratch space or store is full
  store_failed: 'now', // the store denied access or did not answer
  queue_failed: 'now', // the queue did not answer, or its data is inconsistent
  worker_lost: 'later', // several workers stopped sending heartbeats during this job
  aborted: 'now', // the run was stopped
  internal: 'now', // a defect of btfmill
} as const satisfies Record<string, RetryClass>

export type FailureCode = keyof typeof FAILURE_CODES

/** A failure as a record keeps it. */
export const Failure = Type.Object({
  code: Type.Unsafe<FailureCode>(Type.Enum(Object.keys(FAILURE_CODES))),
  message: Type.String(),
  /** the last part of the failed tool's stderr */
  log: Type.Optional(Type.String()),
  attempts: Type.Integer({ minimum: 1 }),
  /** the fingerprint of the run that failed, if the record's BTF has another */
  fingerprint: Type.Optional(Type.String()),
  at: Type.String({ format: 'date-time' }),
  /** when the next try is due; null if only a new fingerprint can change the result */
  retryAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
})
export type Failure = Type.Static<typeof Failure>

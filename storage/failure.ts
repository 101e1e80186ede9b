import Type from 'typebox'

/** When a failure is worth another try. */
export type RetryClass = 'never' | 'later' | 'now'

/**
 * The closed list of what can go wrong on the way from a package to its BTF, each with its class: `never` (the same
 * package will fail again, until btfmill or pahole changes), `later` (the world may mend: growing pauses between
 * runs), `now` (the next run tries again at once).
 */
export const FAILURE_CODES = {
  // the source
  unreachable: 'later', // no connection, or 5xx after all retries
  no_access: 'now', // the certificate or credentials that open the source are not on this machine
  not_found_upstream: 'later', // 404 or 410: the index still lists what the server no longer has
  stalled: 'later', // the server stopped sending
  invalid_signature: 'later', // InRelease, repomd.xml or an RPM header is not signed by the keyring
  no_keyring: 'now', // none of the keyrings to check a signature with is on this machine
  expired_signature: 'later', // Valid-Until has passed, or the signing key expired
  invalid_index: 'later', // an index that does not parse
  index_mismatch: 'later', // an index file is not the one the signed index names
  // the package
  truncated: 'later', // the body ended early, however often it was resumed
  digest_mismatch: 'later', // the package is not the one the signed index names
  invalid_package: 'never', // ar, tar, cpio, xz, zstd or gzip that does not decode
  unsupported_package: 'never', // a format or compression we do not read
  no_vmlinux: 'never', // a shim or metapackage, or a new layout: the message names what was looked for
  no_module: 'never', // the package has no such module: it is built in, or in another package
  too_large: 'never', // over a size limit: archive bombs
  // vmlinux
  invalid_elf: 'never', // vmlinux does not parse
  no_dwarf: 'never', // vmlinux has no .debug_info
  no_btf: 'never', // the kernel has no .BTF of its own, and there is no other way to it
  kernel_mismatch: 'never', // the image is of another release or architecture than its package says
  // pahole and its result
  pahole_missing: 'now', // not installed, or too old
  pahole_crashed: 'never', // ended by a signal
  pahole_failed: 'never', // non-zero exit status
  pahole_out_of_memory: 'later', // over its memory limit
  pahole_timeout: 'later', // over its time limit
  invalid_btf: 'never', // our own reader refuses the result, or it lacks what every kernel has
  // the machine
  no_space: 'now', // scratch space or store is full
  store_failed: 'now', // the store refused or did not answer
  queue_failed: 'now', // the queue did not answer, or what it says cannot be
  worker_lost: 'later', // those who worked on it ended without a word, again and again
  aborted: 'now', // the run was stopped
  internal: 'now', // a defect of btfmill
} as const satisfies Record<string, RetryClass>

export type FailureCode = keyof typeof FAILURE_CODES

/** A failure as it is kept in a record, shown by `list`, and tried again. */
export const Failure = Type.Object({
  code: Type.Unsafe<FailureCode>(Type.Enum(Object.keys(FAILURE_CODES))),
  message: Type.String(),
  /** The end of what the failing tool wrote to stderr. */
  log: Type.Optional(Type.String()),
  attempts: Type.Integer({ minimum: 1 }),
  /** The fingerprint version that failed, where the record's BTF is of another. */
  fingerprint: Type.Optional(Type.String()),
  at: Type.String({ format: 'date-time' }),
  /** When the next try is due; null where a new fingerprint version is needed first. */
  retryAt: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
})
export type Failure = Type.Static<typeof Failure>

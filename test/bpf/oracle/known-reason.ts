/* What libbpf and the verifier print for the reasons that `check` has. */

const KNOWN_REASON =
  /195896080|failed to relocate|CO-RE relocating|failed to find kernel BTF type ID|not found in kernel|incompatible|not resolved|unknown func|invalid func|BPF_MAP_TYPE|struct_ops init_kern/

/** The first line of a log with such a reason. */
export const knownReasonIn = (log: readonly string[]): string | undefined =>
  log.find((line) => KNOWN_REASON.test(line))

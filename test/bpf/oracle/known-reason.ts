/*
 * What libbpf and the verifier print for the reasons that `check` has. The verifier says "unknown func" of a helper that
 * the kernel has but programs of this type may not call, which BTF does not tell; of one that it lacks, "invalid func".
 * Nor does BTF tell that only NAME.part.0 is left of a function: "The address of function NAME cannot be found".
 */

const KNOWN_REASON =
  /195896080|failed to relocate|CO-RE relocating|failed to find kernel BTF type ID|not found in kernel|incompatible|not resolved|invalid func|BPF_STX uses reserved fields|BPF_MAP_TYPE|struct_ops init_kern/

/** The first line of a log with such a reason. */
export const knownReasonIn = (log: readonly string[]): string | undefined =>
  log.find((line) => KNOWN_REASON.test(line))

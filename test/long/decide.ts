import { basename } from 'node:path'
import { type Relocated, relocateWithLibbpf } from '../bpf/oracle/libbpf.ts'

/** Test data of cilium/ebpf that is invalid on purpose, or too old for libbpf 1.0. */
const UNOPENED = /\.elf@|^btf_map|^xdpfilt/

/** Returns libbpf's decisions, or undefined for foreign test data that libbpf does not open. */
export async function decide(
  command: readonly string[],
  object: string,
  kernel: string,
): Promise<Relocated | undefined> {
  try {
    return await relocateWithLibbpf(command, object, kernel)
  } catch (error) {
    if (UNOPENED.test(basename(object))) return undefined
    throw error
  }
}

import { basename } from 'node:path'
import { type Relocated, relocateWithLibbpf } from '../bpf/oracle/libbpf.ts'

/** Test data of cilium/ebpf that is bad on purpose, or older than libbpf 1.0 opens. */
const UNOPENED = /\.elf@|^btf_map|^xdpfilt/

/** libbpf's decisions; undefined for an object of others that libbpf does not open. */
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

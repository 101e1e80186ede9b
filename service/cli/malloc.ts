/*
 * glibc's malloc, as a service wants it. Its threshold for mmap grows with the first large buffer that is freed, and
 * what holes the next ones leave stay with the process, of a service 0.4 GB. Fixed it costs others a quarter of their
 * time, in page faults. It is read when a program starts, so a service starts once more, as the same process.
 */

const THRESHOLD = { MALLOC_MMAP_THRESHOLD_: '1048576' }

/** Starts this command again with a fixed threshold, unless it has one; where that cannot be, it goes on as it is. */
export function restartWithFixedThreshold(): void {
  if (Object.keys(THRESHOLD).some((name) => name in process.env)) return
  const args = [...process.execArgv, ...process.argv.slice(1)]
  process.execve?.(process.execPath, [process.execPath, ...args], { ...process.env, ...THRESHOLD })
}

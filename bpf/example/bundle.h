// SPDX-License-Identifier: Apache-2.0
// BTF for many kernels inside the agent: a tar.gz as `btfmill export --profile bcc` writes it.
#ifndef BUNDLE_H
#define BUNDLE_H

#include "machine.h"

// Unpacks the member for this machine's kernel into memory. Returns a file descriptor, whose path is
// /proc/self/fd/N, or a negative errno: -ENOENT if there is no such member or no bundle.
int bundle_open(const struct machine *machine);

#endif

// SPDX-License-Identifier: Apache-2.0
// The identity of the running kernel: the name under which its BTF is stored, and its build-id.
#ifndef MACHINE_H
#define MACHINE_H

struct machine {
	char distro[64];   // os-release's ID
	char version[64];  // os-release's VERSION_ID, or VERSION_CODENAME, or "rolling"
	char arch[65];     // uname -m
	char release[65];  // uname -r
	char build_id[41]; // hex of the kernel's build-id note, "" if it cannot be read
};

// Reads the identity. A name is "" if it is unknown or not a plain word, because names go into paths.
void machine_read(struct machine *machine);

#endif

// SPDX-License-Identifier: Apache-2.0
// What a machine knows of its own kernel: the name under which its BTF is kept, and the build-id.
#ifndef MACHINE_H
#define MACHINE_H

struct machine {
	char distro[64];   // os-release's ID
	char version[64];  // os-release's VERSION_ID, else VERSION_CODENAME, else "rolling"
	char arch[65];     // uname -m
	char release[65];  // uname -r
	char build_id[41]; // hex of the kernel's build-id note, "" where it cannot be read
};

// Reads it. A name is "" where it is unknown, or is no plain word: it goes into paths.
void machine_read(struct machine *machine);

#endif

// SPDX-License-Identifier: Apache-2.0
// BTF from the cache and the service, by the script btf-fetch.
#ifndef FETCH_H
#define FETCH_H

#include <stddef.h>

struct fetch_options {
	const char *program; // btf-fetch, looked for in $PATH
	const char *server;    // http://host:port; NULL to look into the cache only
	const char *cache;     // NULL: the script's own choice
	unsigned long seconds; // it is ended after so long
	int quiet;
};

// Writes the path of a file with this kernel's BTF. Returns 0 or a negative errno: -ENOENT where there is none (the
// script has said why), -ETIMEDOUT.
int fetch_btf(const struct fetch_options *options, char *path, size_t size);

#endif

// SPDX-License-Identifier: Apache-2.0
// Gets BTF from the cache and the service with the script btf-fetch.
#ifndef FETCH_H
#define FETCH_H

#include <stddef.h>

struct fetch_options {
	const char *program;   // name in $PATH, or path, of btf-fetch
	const char *server;    // http://host:port; NULL: only the cache
	const char *token_file; // with the token for the server; NULL: $BTFMILL_TOKEN_FILE, or the token in $BTFMILL_TOKEN
	const char *cache;     // NULL: the script's default
	unsigned long seconds; // timeout of the script
	int quiet;
};

// Writes the path of a file with this kernel's BTF. Returns 0 or a negative errno: -ENOENT if there is none (the script
// has printed the reason), -ETIMEDOUT.
int fetch_btf(const struct fetch_options *options, char *path, size_t size);

#endif

// SPDX-License-Identifier: Apache-2.0
// The bundle is linked in by -DBUNDLE='"FILE"' and read as a stream, so at most one member is in memory. It is unpacked
// into a memfd, so an agent on a read-only system needs no writable directory.
#define _GNU_SOURCE // memfd_create
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include "bundle.h"

#ifndef BUNDLE
int bundle_open(const struct machine *machine)
{
	return -ENOENT;
}
#else

__asm__(".section .rodata\n"
	"bundle_start: .incbin \"" BUNDLE "\"\n"
	"bundle_end: .byte 0\n"
	".text\n");
extern const unsigned char bundle_start[], bundle_end[];

enum { BLOCK = 512, LARGEST = 64 << 20 };

struct header { // of a tar member, with the fields that all tar formats have
	char name[100], mode[8], uid[8], gid[8], size[12], time[12], checksum[8], type, rest[355];
};

// Unpacks exactly size bytes of the stream.
static bool read_exactly(z_stream *stream, void *into, size_t size)
{
	stream->next_out = into;
	stream->avail_out = size;
	while (stream->avail_out > 0 && inflate(stream, Z_NO_FLUSH) == Z_OK)
		;
	return stream->avail_out == 0;
}

static bool is_whole(const struct header *header)
{
	const unsigned char *bytes = (const unsigned char *)header;
	long sum = 8 * ' '; // the checksum itself counts as spaces

	for (size_t i = 0; i < sizeof(*header); i++)
		if (i < offsetof(struct header, checksum) || i >= offsetof(struct header, type))
			sum += bytes[i];
	return strtol(header->checksum, NULL, 8) == sum;
}

static bool is_named(const struct header *header, const char *name)
{
	const char *own = header->name;

	if (!strncmp(own, "./", 2))
		own += 2;
	return strnlen(own, header->name + sizeof(header->name) - own) == strlen(name) && !memcmp(own, name, strlen(name));
}

static int unpack(z_stream *stream, size_t size)
{
	unsigned char block[BLOCK];
	int fd = memfd_create("btf", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t left = size; left > 0;) {
		const size_t part = left < BLOCK ? left : BLOCK;

		if (!read_exactly(stream, block, BLOCK) || write(fd, block, part) != (ssize_t)part) {
			close(fd);
			return -EIO;
		}
		left -= part;
	}
	return fd;
}

static int find(z_stream *stream, const char *name)
{
	struct header header;
	unsigned char block[BLOCK];

	_Static_assert(sizeof(header) == BLOCK, "a header is one block");
	while (read_exactly(stream, &header, sizeof(header)) && *header.name) {
		unsigned long size;

		if (!is_whole(&header))
			return -EBADMSG;
		size = strtoul(header.size, NULL, 8);
		if (size > LARGEST)
			return -EFBIG;
		if ((header.type == '0' || header.type == '\0') && is_named(&header, name))
			return unpack(stream, size);
		for (unsigned long passed = 0; passed < size; passed += BLOCK)
			if (!read_exactly(stream, block, BLOCK))
				return -EBADMSG;
	}
	return -ENOENT;
}

int bundle_open(const struct machine *machine)
{
	char name[sizeof(((struct header *)0)->name)];
	z_stream stream = { .next_in = (unsigned char *)bundle_start, .avail_in = bundle_end - bundle_start };
	int length, result;

	length = snprintf(name, sizeof(name), "%s/%s/%s/%s.btf", machine->distro, machine->version, machine->arch,
			  machine->release);
	if (!*machine->distro || !*machine->arch || !*machine->release || length >= (int)sizeof(name))
		return -ENOENT;
	if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) // 16: gzip
		return -ENOMEM;
	result = find(&stream, name);
	inflateEnd(&stream);
	return result;
}
#endif

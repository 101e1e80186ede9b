/*
 * Loads random programs into the running kernel, so that its verifier's answer can be compared with ours. Reads a line of
 * hex for each program, the instructions of a raw tracepoint program. Prints a line for each: `loads`, `poison` if the
 * verifier reached libbpf's poison, or `other`.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_HEX (1 << 20)

static const char *load(const char *hex)
{
	static char log[8 << 20];
	static unsigned char bytes[MAX_HEX / 2];
	size_t length = strlen(hex) / 2;
	LIBBPF_OPTS(bpf_prog_load_opts, options, .log_buf = log, .log_size = sizeof(log), .log_level = 1);
	int fd;

	for (size_t i = 0; i < length; i++)
		sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
	log[0] = 0;
	fd = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "random", "GPL", (void *)bytes, length / 8, &options);
	if (fd >= 0) {
		close(fd);
		return "loads";
	}
	/* the number of the helper that libbpf's poison calls */
	return strstr(log, "195896080") ? "poison" : "other";
}

int main(void)
{
	static char line[MAX_HEX];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		puts(load(line));
	}
	return 0;
}

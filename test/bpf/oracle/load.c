/*
 * Loads BPF into the running kernel, so that its answer can be compared with ours.
 *
 * load OBJECT…   opens and loads each object with libbpf. Prints a line for each: the path, the result, the log of libbpf
 *                and the verifier on one line, separated by tabs.
 * load           reads a line of hex for each program, the instructions of a raw tracepoint program. Prints a line for
 *                each: `loads`, `poison` if the verifier reached libbpf's poison, or `other`.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_SIZE (8 << 20)
#define MAX_HEX (1 << 20)

static char *text;
static size_t used;

static int collect(enum libbpf_print_level level, const char *format, va_list arguments)
{
	int written;

	if (level == LIBBPF_DEBUG || used >= LOG_SIZE - 1)
		return 0;
	written = vsnprintf(text + used, LOG_SIZE - used, format, arguments);
	used += written < 0 ? 0 : (size_t)written;
	if (used > LOG_SIZE - 1)
		used = LOG_SIZE - 1;
	return 0;
}

static void load_object(const char *path)
{
	struct bpf_object *object;
	int result = -1000;

	used = 0;
	text[0] = 0;
	object = bpf_object__open_file(path, NULL);
	if (object)
		result = bpf_object__load(object);
	printf("%s\t%d\t", path, result);
	for (const char *c = text; *c; c++)
		putchar(*c == '\n' || *c == '\t' ? '|' : *c);
	putchar('\n');
	bpf_object__close(object);
}

static void load_program(const char *hex)
{
	static unsigned char bytes[MAX_HEX / 2];
	size_t length = strlen(hex) / 2;
	LIBBPF_OPTS(bpf_prog_load_opts, options, .log_buf = text, .log_size = LOG_SIZE, .log_level = 1);
	int fd;

	for (size_t i = 0; i < length; i++)
		sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
	text[0] = 0;
	fd = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "random", "GPL", (void *)bytes, length / 8, &options);
	/* the number of the helper that libbpf's poison calls */
	puts(fd >= 0 ? "loads" : strstr(text, "195896080") ? "poison" : "other");
	if (fd >= 0)
		close(fd);
}

int main(int count, char **paths)
{
	static char line[MAX_HEX];

	text = malloc(LOG_SIZE);
	if (!text)
		return 1;
	libbpf_set_print(collect);
	for (int i = 1; i < count; i++)
		load_object(paths[i]);
	while (count == 1 && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		load_program(line);
	}
	return 0;
}

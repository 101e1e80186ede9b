/*
 * The loader in the guest: loads, and with --attach attaches, the programs of one BPF object with libbpf.
 *
 *   load [--attach] [--all-programs] [--size-maps] [--btf FILE] OBJECT
 *
 * It loads the object as a whole. If that fails, it loads each program alone, so that each gets an answer of its own.
 * Standard output has one line for the libbpf version, one for the object and one for each program, with tabs between the
 * fields; errors are negative errno values, and `-` stands for what was not tried:
 *
 *   libbpf VERSION
 *   object ERROR
 *   program NAME SECTION LOAD-ERROR ATTACH-ERROR
 *   log TEXT      a line of libbpf or the verifier, about the object or program of the line before
 *
 * Exit status: 0 if everything loads and attaches, 1 if something does not. A program without automatic attachment is not
 * attached, which is no failure.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* of what libbpf says about one program, the end is kept: the verifier's verdict stands there */
#define LOG_SIZE (16 << 20)
#define LOG_SHOWN (64 << 10)
#define EVERY (-1)
/* the least size of a ring buffer, and the usual depth of a stack trace */
#define RING_SIZE 65536
#define STACK_DEPTH 127
/* BPF_MAP_TYPE_CGRP_STORAGE; headers before Linux 6.2 lack it */
#define CGRP_STORAGE 32

/* libelf.a of Debian 13 lacks these, which only elf_getdata_rawchunk() needs; libbpf does not call it. */
__attribute__((weak)) void eu_search_tree_init(void *tree)
{
	(void)tree;
}

__attribute__((weak)) void eu_search_tree_fini(void *tree, void *free_node)
{
	(void)tree;
	(void)free_node;
}

static char *text;
static size_t used;
static const char *path, *btf;
static bool attach, all_programs, size_maps;

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

static void print_log(void)
{
	char *from = text, *line, *save;

	if (used > LOG_SHOWN) {
		from = text + used - LOG_SHOWN;
		from += strcspn(from, "\n");
	}
	for (line = strtok_r(from, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		printf("log\t%s\n", line);
	used = 0;
	text[0] = 0;
}

static struct bpf_object *open_object(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = btf);

	return bpf_object__open_file(path, &options);
}

static struct bpf_program *program_at(struct bpf_object *object, int at)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object)
		if (at-- == 0)
			return program;
	return NULL;
}

/* Gives maps without a size a small one, as loaders set it before they load. */
static void set_size(struct bpf_map *map)
{
	switch ((int)bpf_map__type(map)) {
	case BPF_MAP_TYPE_CGROUP_STORAGE:
	case BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE:
	case BPF_MAP_TYPE_SK_STORAGE:
	case BPF_MAP_TYPE_INODE_STORAGE:
	case BPF_MAP_TYPE_TASK_STORAGE:
	case CGRP_STORAGE:
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
	case BPF_MAP_TYPE_STRUCT_OPS:
		return; /* the kernel or libbpf sizes them */
	case BPF_MAP_TYPE_STACK_TRACE:
		if (bpf_map__value_size(map) == 0)
			bpf_map__set_value_size(map, STACK_DEPTH * sizeof(__u64));
		break;
	default:
		break;
	}
	if (bpf_map__max_entries(map) == 0)
		bpf_map__set_max_entries(map, bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF ? RING_SIZE : 1);
}

/* Opens the object and loads it: every program, or only the one with this index. */
static int load(struct bpf_object **object, int only)
{
	struct bpf_program *program;
	struct bpf_map *map;
	int at = 0;

	*object = open_object();
	if (!*object)
		return -errno;
	if (size_maps)
		bpf_object__for_each_map(map, *object)
			set_size(map);
	bpf_object__for_each_program(program, *object) {
		if (only != EVERY)
			bpf_program__set_autoload(program, at == only);
		else if (all_programs)
			bpf_program__set_autoload(program, true);
		at++;
	}
	return bpf_object__load(*object);
}

/* Prints the line of a program whose load gave this result, and returns whether it works. */
static bool report(struct bpf_program *program, int error)
{
	bool works = error == 0;

	printf("program\t%s\t%s\t%d\t", bpf_program__name(program), bpf_program__section_name(program), error);
	if (attach && error == 0) {
		struct bpf_link *link = bpf_program__attach(program);
		int failed = link ? 0 : -errno;

		printf("%d\n", failed);
		works = failed == 0 || failed == -EOPNOTSUPP;
	} else {
		puts("-");
	}
	print_log();
	return works;
}

int main(int count, char **arguments)
{
	struct bpf_object *object, *alone;
	struct bpf_program *program;
	struct bpf_map *map;
	bool works;
	int error, at = 0;

	for (int i = 1; i < count; i++) {
		if (!strcmp(arguments[i], "--attach"))
			attach = true;
		else if (!strcmp(arguments[i], "--all-programs"))
			all_programs = true;
		else if (!strcmp(arguments[i], "--size-maps"))
			size_maps = true;
		else if (!strcmp(arguments[i], "--btf") && i + 1 < count)
			btf = arguments[++i];
		else
			path = arguments[i];
	}
	text = malloc(LOG_SIZE);
	if (!text || !path)
		return 2;
	text[0] = 0;
	libbpf_set_print(collect);
	printf("libbpf\t%s\n", libbpf_version_string());
	error = load(&object, EVERY);
	works = error == 0;
	printf("object\t%d\n", error);
	print_log();
	if (!object)
		return 1;
	bpf_object__for_each_program(program, object) {
		at++;
		if (!bpf_program__autoload(program))
			continue;
		if (error == 0) {
			works = report(program, 0) && works;
			continue;
		}
		int result = load(&alone, at - 1);

		if (alone)
			report(program_at(alone, at - 1), result);
		bpf_object__close(alone);
	}
	if (attach && error == 0)
		bpf_object__for_each_map(map, object) {
			if (bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS)
				continue;
			struct bpf_link *link = bpf_map__attach_struct_ops(map);
			int failed = link ? 0 : -errno;

			printf("program\t%s\tstruct_ops map\t0\t%d\n", bpf_map__name(map), failed);
			print_log();
			works = works && failed == 0;
		}
	return works ? 0 : 1;
}

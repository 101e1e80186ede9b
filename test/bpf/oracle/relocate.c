/*
 * Prints libbpf's result for every CO-RE relocation of an object against a kernel's BTF. Usage: relocate OBJECT BTF
 *
 * libbpf relocates within bpf_object__load(), between probing the running kernel and loading programs into it. So this
 * program answers bpf(2) itself: every command succeeds, without privileges and without a kernel. It loads each program
 * alone, since the first fatal relocation ends a load.
 *
 * Standard output, per program: `program NAME`, libbpf's messages, each line after `| `, `result ERRNO` of
 * bpf_object__load(), and `instructions HEX`, the relocated program (with its subprograms, if the load came that far).
 *
 *   clang relocate.c -lbpf -o relocate
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Replaces libc's, also for libbpf: a bpf(2) command that creates a file descriptor returns one, any other returns 0. */
long syscall(long number, ...)
{
	long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long argument[6];
	va_list arguments;

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		argument[i] = va_arg(arguments, long);
	va_end(arguments);
	if (number != __NR_bpf)
		return real(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
	switch ((int)argument[0]) {
	case BPF_MAP_CREATE:
	case BPF_PROG_LOAD:
	case BPF_BTF_LOAD:
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	case BPF_BTF_GET_NEXT_ID:
	case BPF_OBJ_GET:
		errno = ENOENT;
		return -1;
	default:
		return 0;
	}
}

static int print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	static char text[1 << 16];
	static int inside; /* one message began a line that another ends */

	(void)level;
	vsnprintf(text, sizeof(text), format, arguments);
	for (const char *c = text; *c; c++) {
		if (!inside)
			fputs("| ", stdout);
		putchar(*c);
		inside = *c != '\n';
	}
	return 0;
}

/*
 * libbpf looks for what these attach to in the running kernel's BTF, after relocating. As programs of a section that
 * it does not know they attach to nothing, and relocate all the same.
 */
static void forget_attaching(void)
{
	static const char *sections[] = {
		"fentry+", "fexit+", "fmod_ret+", "fentry.s+", "fexit.s+", "fmod_ret.s+", "tp_btf+",
		"freplace+", "lsm+", "lsm.s+", "lsm_cgroup+", "iter+", "iter.s+", "struct_ops+",
	};

	for (size_t i = 0; i < sizeof(sections) / sizeof(*sections); i++)
		libbpf_register_prog_handler(sections[i], BPF_PROG_TYPE_SOCKET_FILTER, 0, NULL);
}

static struct bpf_program *program_at(struct bpf_object *object, int index)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object)
		if (index-- == 0)
			return program;
	return NULL;
}

/* Returns 0 if there is no program with this number. */
static int load_alone(const char *path, const char *btf, int index)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = btf, .kconfig = "CONFIG_BPF=y\n");
	struct bpf_object *object = bpf_object__open_file(path, &options);
	struct bpf_program *chosen, *program;
	const unsigned char *bytes;
	int result;

	if (!object) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	chosen = program_at(object, index);
	if (!chosen) {
		bpf_object__close(object);
		return 0;
	}
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, program == chosen);
	printf("program %s\n", bpf_program__name(chosen));
	libbpf_set_print(print);
	result = bpf_object__load(object);
	libbpf_set_print(NULL);
	printf("result %d\ninstructions ", result);
	bytes = (const unsigned char *)bpf_program__insns(chosen);
	for (size_t i = 0; i < bpf_program__insn_cnt(chosen) * sizeof(struct bpf_insn); i++)
		printf("%02x", bytes[i]);
	putchar('\n');
	bpf_object__close(object);
	return 1;
}

int main(int count, char **arguments)
{
	if (count != 3) {
		fputs("usage: relocate OBJECT BTF\n", stderr);
		return 2;
	}
	libbpf_set_print(NULL);
	forget_attaching();
	for (int index = 0; load_alone(arguments[1], arguments[2], index); index++)
		;
	return 0;
}

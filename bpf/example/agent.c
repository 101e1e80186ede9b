// SPDX-License-Identifier: Apache-2.0
// Loads exec.bpf.o, on a kernel with or without BTF of its own, and prints a line per execve().
//
// The one thing a kernel without BTF asks of an agent is bpf_object_open_opts.btf_custom_path (libbpf 0.6): a file
// with that kernel's BTF, such as btf-fetch gets. Everything else is as anywhere.
//
//   cc -O2 agent.c -o agent -lbpf -lelf -lz
//   ./agent exec.bpf.o || ./agent --btf "$(./btf-fetch …)" exec.bpf.o
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "exec.h"

static const char usage[] =
	"Usage: agent [--btf FILE] [--events N] [--seconds N] OBJECT\n"
	"Prints a line per process that calls execve().\n"
	"  --btf FILE    this kernel's BTF, where the kernel has none in /sys/kernel/btf/vmlinux\n"
	"  --events N    end after so many\n"
	"  --seconds N   end after so long; a failure where --events were asked for and did not come\n";

struct options {
	const char *btf;
	const char *object;
	unsigned long events;  // 0: no end
	unsigned long seconds; // 0: no end
};

static unsigned long seen; // events

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end) {
		fprintf(stderr, "agent: not a number: %s\n%s", text, usage);
		exit(2);
	}
	return value;
}

static struct options parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "btf", required_argument, NULL, 'b' },
		{ "events", required_argument, NULL, 'e' },
		{ "seconds", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	struct options options = {};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'b': options.btf = optarg; break;
		case 'e': options.events = number(optarg); break;
		case 's': options.seconds = number(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: fputs(usage, stderr); exit(2);
		}
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		exit(2);
	}
	options.object = argv[optind];
	return options;
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(error));
	return 1;
}

static void print_event(void *context, int cpu, void *data, __u32 size)
{
	struct exec_event event;

	if (size < sizeof(event))
		return;
	memcpy(&event, data, sizeof(event)); // a sample is not aligned
	printf("exec pid=%u parent=%u comm=%.16s\n", event.pid, event.parent, event.comm);
	seen++;
}

static void print_lost(void *context, int cpu, __u64 count)
{
	fprintf(stderr, "agent: %llu events lost\n", (unsigned long long)count);
}

// Prints events until there were enough or the time is over. Returns the exit status.
static int report(struct perf_buffer *events, const struct options *options)
{
	time_t end = time(NULL) + options->seconds;

	while (!options->events || seen < options->events) {
		int error = perf_buffer__poll(events, 100);

		if (error < 0 && error != -EINTR)
			return fail("cannot read events", -error);
		if (options->seconds && time(NULL) >= end)
			break;
	}
	if (seen >= options->events)
		return 0;
	fprintf(stderr, "agent: %lu of %lu events within %lu seconds\n", seen, options->events, options->seconds);
	return 1;
}

static int run(struct bpf_object *object, const struct options *options)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object, "report_exec");
	int map = bpf_object__find_map_fd_by_name(object, "events");
	struct perf_buffer *events;
	struct bpf_link *link;
	int status;

	if (!program || map < 0)
		return fail("the object lacks report_exec or events", ENOENT);
	events = perf_buffer__new(map, 8, print_event, print_lost, NULL, NULL);
	if (!events)
		return fail("cannot set up the perf buffer", errno);
	link = bpf_program__attach(program);
	if (link) {
		printf("attached, with %s\n", options->btf ? options->btf : "the kernel's own BTF");
		status = report(events, options);
	} else {
		status = fail("cannot attach to sched_process_exec", errno);
	}
	bpf_link__destroy(link);
	perf_buffer__free(events);
	return status;
}

int main(int argc, char **argv)
{
	const struct options options = parse(argc, argv);
	LIBBPF_OPTS(bpf_object_open_opts, open, .btf_custom_path = options.btf);
	struct bpf_object *object;
	int error, status;

	setvbuf(stdout, NULL, _IOLBF, 0); // whoever reads our pipe wants the line now
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL); // errors as of libbpf 1.0, with 0.x too

	object = bpf_object__open_file(options.object, &open);
	if (!object)
		return fail(options.object, errno);
	error = bpf_object__load(object);
	if (error) {
		status = fail("libbpf does not load the program", -error);
		if (!options.btf && access("/sys/kernel/btf/vmlinux", F_OK))
			fputs("agent: this kernel was built without BTF; give it with --btf FILE (see btf-fetch)\n", stderr);
	} else {
		status = run(object, &options);
	}
	bpf_object__close(object);
	return status;
}

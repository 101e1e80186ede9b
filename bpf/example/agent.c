// SPDX-License-Identifier: Apache-2.0
// Loads exec.bpf.o on any kernel and prints a line per execve().
//
// A CO-RE program needs the running kernel's types as BTF. The agent tries these sources, in this order:
//
//   kernel   the kernel's own BTF, in /sys/kernel/btf/vmlinux
//   cache    a file that btf-fetch got before
//   bundle   an archive that was linked into this agent (make BUNDLE=…)
//   service  a btfmill server, by btf-fetch
//   object   no BTF: a second object beside OBJECT that was built for this one kernel (make kernel …) and has the
//            kernel's build-id in its name, exec.<build-id>.bpf.o
//
// It uses the first source with which the program loads, and names it on standard error. For a kernel without BTF,
// libbpf needs one thing: bpf_object_open_opts.btf_custom_path (libbpf 0.6).
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include "bundle.h"
#include "exec.h"
#include "fetch.h"
#include "machine.h"

static const char usage[] =
	"Usage: agent [options] OBJECT\n"
	"Prints a line per process that calls execve().\n"
	"  --btf FILE        file with this kernel's BTF, the only source then\n"
	"  --from LIST       sources to try, in this order (default: kernel,cache,bundle,service,object)\n"
	"  --server URL      server that btf-fetch asks (default: $BTFMILL_SERVER)\n"
	"  --token-file FILE file with the token for that server (default: $BTFMILL_TOKEN_FILE)\n"
	"  --cache DIR       cache directory of btf-fetch (default: its own)\n"
	"  --fetch PROGRAM   path of btf-fetch (default: btf-fetch in $PATH)\n"
	"  --patience N      seconds until btf-fetch is stopped (default: 120)\n"
	"  --quiet           print only failures\n"
	"  --events N        exit after N events (default: never)\n"
	"  --seconds N       exit after N seconds, with a failure if fewer than --events came (default: never)\n";

struct options {
	const char *btf;
	const char *object;
	char *from; // names of sources, separated by commas
	struct fetch_options fetch;
	unsigned long events;  // 0: no limit
	unsigned long seconds; // 0: no limit
};

static unsigned long seen; // number of events printed
static bool quiet;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list arguments;

	if (quiet)
		return;
	va_start(arguments, format);
	fputs("agent: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(error));
	return 1;
}

static _Noreturn void wrong_usage(const char *what, const char *text)
{
	if (what)
		fprintf(stderr, "agent: %s: %s\n", what, text);
	fputs(usage, stderr);
	exit(2);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end)
		wrong_usage("invalid number: expected digits", text);
	return value;
}

static struct options parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "btf", required_argument, NULL, 'b' },     { "from", required_argument, NULL, 'f' },
		{ "server", required_argument, NULL, 's' },  { "cache", required_argument, NULL, 'c' },
		{ "fetch", required_argument, NULL, 'p' },   { "patience", required_argument, NULL, 't' },
		{ "quiet", no_argument, NULL, 'q' },         { "events", required_argument, NULL, 'e' },
		{ "seconds", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
		{ "token-file", required_argument, NULL, 'k' },
		{},
	};
	struct options options = {
		.from = strdup("kernel,cache,bundle,service,object"),
		.fetch = { .program = "btf-fetch", .server = getenv("BTFMILL_SERVER"), .seconds = 120 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'b': options.btf = optarg; options.from = strdup("file"); break;
		case 'f': options.from = optarg; break;
		case 's': options.fetch.server = optarg; break;
		case 'k': options.fetch.token_file = optarg; break;
		case 'c': options.fetch.cache = optarg; break;
		case 'p': options.fetch.program = optarg; break;
		case 't': options.fetch.seconds = number(optarg); break;
		case 'q': options.fetch.quiet = quiet = true; break;
		case 'e': options.events = number(optarg); break;
		case 'n': options.seconds = number(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: wrong_usage(NULL, NULL);
		}
	}
	if (optind + 1 != argc)
		wrong_usage(NULL, NULL);
	options.object = argv[optind];
	return options;
}

// The object to load, and its BTF.
struct choice {
	char object[4096];
	char btf[4096]; // "": libbpf finds the kernel's own BTF, or the object needs none
};

// Each source fills in the choice. Returns 0, or a negative errno if the source has nothing.

static int from_file(const struct options *options, const struct machine *machine, struct choice *choice)
{
	snprintf(choice->btf, sizeof(choice->btf), "%s", options->btf ? options->btf : "");
	return access(choice->btf, R_OK) ? -errno : 0;
}

static int from_kernel(const struct options *options, const struct machine *machine, struct choice *choice)
{
	struct btf *btf = btf__load_vmlinux_btf(); // looks in the same places as loading does

	if (!btf)
		return -errno;
	btf__free(btf);
	return 0;
}

static int from_cache(const struct options *options, const struct machine *machine, struct choice *choice)
{
	struct fetch_options fetch = options->fetch;

	fetch.server = NULL;
	fetch.quiet = true; // an empty cache is not a failure
	return fetch_btf(&fetch, choice->btf, sizeof(choice->btf));
}

static int from_bundle(const struct options *options, const struct machine *machine, struct choice *choice)
{
	const int fd = bundle_open(machine); // stays open, because its path is valid only until it is closed

	if (fd < 0)
		return fd;
	snprintf(choice->btf, sizeof(choice->btf), "/proc/self/fd/%d", fd);
	return 0;
}

static int from_service(const struct options *options, const struct machine *machine, struct choice *choice)
{
	if (!options->fetch.server)
		return -EDESTADDRREQ;
	return fetch_btf(&options->fetch, choice->btf, sizeof(choice->btf));
}

static int from_object(const struct options *options, const struct machine *machine, struct choice *choice)
{
	static const char suffix[] = ".bpf.o";
	const size_t length = strlen(options->object);
	const int stem = length > strlen(suffix) ? length - strlen(suffix) : 0;

	if (!*machine->build_id || strcmp(options->object + stem, suffix))
		return -ENOENT;
	snprintf(choice->object, sizeof(choice->object), "%.*s.%s%s", stem, options->object, machine->build_id, suffix);
	return access(choice->object, R_OK) ? -errno : 0;
}

static const struct source {
	const char *name;
	const char *what;
	int (*find)(const struct options *options, const struct machine *machine, struct choice *choice);
} sources[] = {
	{ "file", "BTF from --btf", from_file },
	{ "kernel", "the kernel's own BTF", from_kernel },
	{ "cache", "BTF from the cache", from_cache },
	{ "bundle", "BTF from the bundle in this agent", from_bundle },
	{ "service", "BTF from the service", from_service },
	{ "object", "an object for this kernel alone", from_object },
};

static const struct source *source_named(const char *name)
{
	for (size_t i = 0; i < sizeof(sources) / sizeof(*sources); i++)
		if (!strcmp(sources[i].name, name))
			return &sources[i];
	wrong_usage("unknown source: expected kernel, cache, bundle, service or object", name);
}

// Opens and loads an object. Returns NULL with errno if libbpf or the kernel refuses; libbpf has printed the reason.
static struct bpf_object *load(const struct choice *choice)
{
	LIBBPF_OPTS(bpf_object_open_opts, open, .btf_custom_path = *choice->btf ? choice->btf : NULL);
	struct bpf_object *object = bpf_object__open_file(choice->object, &open);
	int error;

	if (!object)
		return NULL;
	error = bpf_object__load(object);
	if (!error)
		return object;
	bpf_object__close(object);
	errno = -error;
	return NULL;
}

// Tries the sources until a program loads. Returns NULL if none does.
static struct bpf_object *start(const struct options *options)
{
	struct machine machine;

	machine_read(&machine);
	say("%s %s %s %s, build-id %s", machine.distro, machine.version, machine.arch, machine.release,
	    *machine.build_id ? machine.build_id : "unknown");
	for (char *name = strtok(options->from, ","); name; name = strtok(NULL, ",")) {
		const struct source *source = source_named(name);
		struct choice choice = {};
		struct bpf_object *object;
		int error;

		snprintf(choice.object, sizeof(choice.object), "%s", options->object);
		error = source->find(options, &machine, &choice);
		object = error ? NULL : load(&choice);
		if (object) {
			say("loaded with %s%s%s", source->what, *choice.btf ? ": " : "", choice.btf);
			return object;
		}
		say("%s: %s: %s", name, error ? "there is none" : "it does not load", strerror(error ? -error : errno));
	}
	fprintf(stderr, "agent: no source of BTF for %s %s %s %s makes the program load\n", machine.distro, machine.version,
		machine.arch, machine.release);
	return NULL;
}

// The letter that ps and /proc/PID/stat show for a state.
static char state_letter(__u32 state)
{
	static const char letters[] = "SDTt";

	if (!state)
		return 'R';
	for (int bit = 0; letters[bit]; bit++)
		if (state & 1U << bit)
			return letters[bit];
	return '?';
}

static void print_event(void *context, int cpu, void *data, __u32 size)
{
	struct exec_event event;

	if (size < sizeof(event))
		return;
	memcpy(&event, data, sizeof(event)); // a sample is not aligned
	printf("exec pid=%u comm=%.16s parent=%u state=%c cpu=%d\n", event.pid, event.comm, event.parent,
	       state_letter(event.parent_state), (int)event.parent_cpu);
	seen++;
}

static void print_lost(void *context, int cpu, __u64 count)
{
	fprintf(stderr, "agent: %llu events lost\n", (unsigned long long)count);
}

// Prints events until --events or --seconds is reached. Returns the exit status.
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
		say("attached");
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
	struct bpf_object *object;
	int status;

	setvbuf(stdout, NULL, _IOLBF, 0); // a reader of our pipe gets each line at once
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL); // makes libbpf 0.x report errors as 1.0 does
	if (quiet)
		libbpf_set_print(NULL);
	object = start(&options);
	if (!object)
		return 1;
	status = run(object, &options);
	bpf_object__close(object);
	return status;
}

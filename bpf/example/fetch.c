// SPDX-License-Identifier: Apache-2.0
// Runs the script in its own process group, without a shell, and kills the group after a timeout. The script prints one
// line, the path, on standard output; its standard error is that of the agent.
#define _GNU_SOURCE // pipe2
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "fetch.h"

static void run(const struct fetch_options *options, int out)
{
	const char *arguments[10] = { options->program };
	int count = 1;

	if (options->server) {
		arguments[count++] = "--server";
		arguments[count++] = options->server;
	} else {
		arguments[count++] = "--offline";
	}
	if (options->token_file) {
		arguments[count++] = "--token-file";
		arguments[count++] = options->token_file;
	}
	if (options->cache) {
		arguments[count++] = "--cache";
		arguments[count++] = options->cache;
	}
	if (options->quiet)
		arguments[count++] = "--quiet";
	setpgid(0, 0);
	dup2(out, STDOUT_FILENO);
	execvp(options->program, (char **)arguments);
	_exit(127);
}

static long long now(void) // in milliseconds
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

// Reads until the other end of the pipe closes. Returns the length, or a negative errno if it is too long or too late.
static ssize_t read_all(int fd, char *into, size_t size, long long end)
{
	size_t length = 0;

	for (;;) {
		const long long left = end - now();
		struct pollfd readable = { .fd = fd, .events = POLLIN };
		ssize_t part;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&readable, 1, left) <= 0)
			continue;
		part = read(fd, into + length, size - length);
		if (part < 0 && errno != EINTR)
			return -errno;
		if (part == 0)
			return length;
		if (part > 0)
			length += part;
		if (length == size)
			return -ENAMETOOLONG;
	}
}

// Sends SIGTERM, so that the script can remove its temporary files, then SIGKILL.
static void stop(pid_t group)
{
	const long long end = now() + 1000;

	kill(-group, SIGTERM);
	while (now() < end && !waitid(P_PID, group, &(siginfo_t){}, WEXITED | WNOHANG | WNOWAIT) && !kill(group, 0))
		poll(NULL, 0, 20);
	kill(-group, SIGKILL);
}

int fetch_btf(const struct fetch_options *options, char *path, size_t size)
{
	const long long end = now() + options->seconds * 1000LL;
	ssize_t length;
	int pipes[2], status;
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0)
		run(options, pipes[1]);
	setpgid(child, child); // both processes call it, because either may be first
	close(pipes[1]);
	if (child < 0) {
		close(pipes[0]);
		return -EAGAIN;
	}
	length = read_all(pipes[0], path, size, end);
	close(pipes[0]);
	if (length < 0)
		stop(child);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (length < 0)
		return length;
	if (!WIFEXITED(status) || WEXITSTATUS(status) || length < 2 || path[0] != '/' || path[length - 1] != '\n')
		return -ENOENT;
	path[length - 1] = '\0';
	return 0;
}

/* job.c - pid 2, from "a job has come" to its execve(). */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* First out of the way of 0, 1 and 2, where the service's descriptors may have landed. */
int put_stdio(struct sandbox *sandbox, int *index)
{
	int high[STDIO];

	for (int i = 0; i < STDIO; i++) {
		*index = i;
		high[i] = fcntl(sandbox->received[i], F_DUPFD_CLOEXEC, DESCRIPTORS_MAX);
		if (high[i] < 0)
			return errno;
	}
	for (int i = 0; i < STDIO; i++) {
		*index = STDIO + i;
		if (dup2(high[i], i) < 0)
			return errno;
	}
	return 0;
}

/*
 * What stays beside stdio is close-on-exec: the sockets tell of a failure and hand the listener over, the
 * counters are read once more.
 */
int close_descriptors(struct sandbox *sandbox, int *index)
{
	int keep[STDIO + 2 + CPU_COUNTERS_MAX] = { 0, 1, 2, sandbox->control, sandbox->handover };
	size_t count = STDIO + 2;

	(void)index;
	for (uint32_t i = 0; i < sandbox->make->cpu_counters; i++)
		keep[count++] = sandbox->counters[i];
	for (size_t i = STDIO; i < count; i++)
		if (fcntl(keep[i], F_SETFD, FD_CLOEXEC))
			return errno;
	return close_all_but(keep, count);
}

/* Whether the program at `path` can be executed, as execve() would say it. */
static int check_program(const char *path)
{
	struct stat about;

	if (stat(path, &about))
		return errno;
	if (!S_ISREG(about.st_mode))
		return EACCES;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) ? errno : 0;
}

/* "DIRECTORY/name" in `program`; an empty directory is the current one, as in a shell. */
static int join_path(char *program, const char *directory, size_t length, const char *name)
{
	size_t name_bytes = strlen(name) + 1;

	if (length + 1 + name_bytes > PATH_BYTES_MAX)
		return ENAMETOOLONG;
	memcpy(program, directory, length);
	if (length)
		program[length++] = '/';
	memcpy(program + length, name, name_bytes);
	return 0;
}

/*
 * As execvp(3), but before the filter, which then has one execve() to allow. A program that is
 * there and may not be executed is told from one that is not there.
 */
int find_program(struct sandbox *sandbox, int *index)
{
	const char *name = sandbox->arguments[0], *place = sandbox->search;
	int refused = ENOENT;

	*index = 1;
	if (chdir(sandbox->directory))
		return errno;
	*index = 0;
	if (strchr(name, '/')) {
		int error = join_path(sandbox->program, "", 0, name);

		return error ? error : check_program(sandbox->program);
	}
	for (;;) {
		size_t length = strcspn(place, ":");
		int error = join_path(sandbox->program, place, length, name);

		if (!error)
			error = check_program(sandbox->program);
		if (!error)
			return *name ? 0 : ENOENT;
		if (error != ENOENT && error != ENOTDIR)
			refused = error;
		if (!place[length])
			return refused;
		place += length + 1;
	}
}

/* The scheduler books a process's time when it is switched out or at a tick: yielding books ours now. */
int report_baseline(struct sandbox *sandbox, int *index)
{
	struct news news = { .header.type = TYPE_STARTED, .since_ns = sandbox->taken_ns };
	int error;

	/* What came with the job and is not its stdio has been closed, not only marked to be. */
	if (is_open(sandbox->received[JOB_DESCRIPTORS - 1])) {
		*index = 1;
		return ENOTRECOVERABLE;
	}
	sched_yield();
	error = cpu_read(sandbox->counters, sandbox->make->cpu_counters, &news.cpu);
	if (error)
		return error;
	news.clock_ns = clock_now();
	return tell(sandbox, &news, NULL, 0);
}

int execute(struct sandbox *sandbox, int *index)
{
	(void)index;
	execve(sandbox->program, sandbox->arguments, sandbox->variables);
	return errno;
}

/*
 * job.c - from "a job has come" to its execve().
 *
 * The plan is bytes from the service, mapped read-only. It is read inside the sandbox, by a
 * process that has authority over this sandbox alone, and every length in it is checked.
 */
#include "plan.h"
#include "setup.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STDIO = 3, JOB_DESCRIPTORS = STDIO + 2, EXPLAINED_DESCRIPTORS = JOB_DESCRIPTORS + 2 };

int tell(const struct sandbox *sandbox, struct news *news, int fd)
{
	news->header.slot = sandbox->make->header.slot;
	if (fd >= 0)
		return message_send(sandbox->control, news, sizeof *news, &fd, 1);
	/* What a policy has to allow beside execve() and exit_group(): a failing execve() is told by it. */
	return write(sandbox->control, news, sizeof *news) < 0 ? errno : 0;
}

static int map_bytes(int fd, uint64_t bytes, const char **place)
{
	void *mapped = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);

	if (mapped == MAP_FAILED)
		return errno;
	*place = mapped;
	return 0;
}

static const char *end_of_plan(const struct sandbox *sandbox)
{
	return sandbox->plan + sandbox->start.plan_bytes;
}

/* An array of `count` strings of the plan, ended by NULL. */
static int list_strings(const struct sandbox *sandbox, const char **place, uint32_t count,
			char ***list)
{
	size_t bytes = ((size_t)count + 1) * sizeof(char *);
	char **strings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (strings == MAP_FAILED)
		return errno;
	for (uint32_t i = 0; i < count; i++) {
		strings[i] = (char *)plan_string(place, end_of_plan(sandbox));
		if (!strings[i])
			return EBADMSG;
	}
	*list = strings;
	return 0;
}

static int read_plan(struct sandbox *sandbox)
{
	const char *place = sandbox->plan;
	int error = list_strings(sandbox, &place, sandbox->start.arguments, &sandbox->arguments);

	if (!error)
		error = list_strings(sandbox, &place, sandbox->start.variables, &sandbox->variables);
	if (error)
		return error;
	sandbox->search = plan_string(&place, end_of_plan(sandbox));
	sandbox->files = place;
	return sandbox->search && sandbox->start.arguments ? 0 : EBADMSG;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/*
 * Two barriers that nobody would miss until they were needed, tried once more: a change of ids since would
 * have cleared the one, and what the supervisor has open would hide its death.
 */
static int check_guards(void)
{
	int signal = 0;

	if (prctl(PR_GET_PDEATHSIG, &signal, 0, 0, 0))
		return errno;
	return signal == SIGKILL && !is_open(SERVICE) ? 0 : ENOTRECOVERABLE;
}

static int report_built(struct sandbox *sandbox)
{
	struct news news = { .header.type = TYPE_BUILT };
	int error = check_guards();

	if (!error)
		error = tell(sandbox, &news, sandbox->box);
	close(sandbox->box);
	return error;
}

static int prepare_to_explain(struct sandbox *sandbox, const int *fds)
{
	void *denials;

	sandbox->handover = sandbox->answers = -1;
	if (!sandbox->start.explains)
		return 0;
	sandbox->answers = fds[0];
	denials = mmap(NULL, sizeof *sandbox->denials, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
	if (denials == MAP_FAILED)
		return errno;
	sandbox->denials = denials;
	return 0;
}

int receive_job(struct sandbox *sandbox, int *index)
{
	int fds[DESCRIPTORS_MAX];
	size_t length, count;
	int error = report_built(sandbox);

	if (!error)
		error = message_receive(sandbox->control, &sandbox->start, sizeof sandbox->start,
					&length, fds, &count);
	*index = 1;
	if (error)
		return error;
	if (length != sizeof sandbox->start ||
	    count != (sandbox->start.explains ? EXPLAINED_DESCRIPTORS : JOB_DESCRIPTORS))
		return EBADMSG;
	memcpy(sandbox->stdio, fds, sizeof sandbox->stdio);
	sandbox->came_last = fds[count - 1];
	error = map_bytes(fds[STDIO], sandbox->start.filter_bytes, &sandbox->filter);
	if (!error)
		error = map_bytes(fds[STDIO + 1], sandbox->start.plan_bytes, &sandbox->plan);
	if (!error)
		error = prepare_to_explain(sandbox, fds + JOB_DESCRIPTORS);
	*index = 2;
	return error ? error : read_plan(sandbox);
}

static int open_beneath(int box, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, box, path, &how, sizeof how);
}

static int give_to_job(int directory, const char *path)
{
	return fchownat(directory, path, JOB_ID, JOB_ID, AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

/* Every directory on the way to `path`, which the service has checked has no "." or "..". */
static int make_parents(int box, const char *path)
{
	char parent[PATH_BYTES_MAX];
	int error = 0;

	for (size_t i = 0; path[i] && i < sizeof parent - 1; i++) {
		parent[i] = path[i];
		if (path[i + 1] != '/')
			continue;
		parent[i + 1] = 0;
		if (mkdirat(box, parent, 0755) == 0)
			error = give_to_job(box, parent);
		else if (errno != EEXIST)
			error = errno;
		if (error)
			return error;
	}
	return 0;
}

static int write_all(int fd, const char *bytes, uint64_t count)
{
	while (count) {
		ssize_t wrote = write(fd, bytes, count);

		if (wrote < 0)
			return errno;
		bytes += wrote;
		count -= (uint64_t)wrote;
	}
	return 0;
}

static int write_file(int box, const struct planned_file *file)
{
	int error = make_parents(box, file->path), fd;

	if (error)
		return error;
	fd = open_beneath(box, file->path, O_CREAT | O_EXCL | O_WRONLY, file->about.mode);
	if (fd < 0)
		return errno;
	error = write_all(fd, file->bytes, file->about.bytes);
	close(fd);
	return error ? error : give_to_job(box, file->path);
}

static int write_each_file(struct sandbox *sandbox, int box, int *index)
{
	const char *place = sandbox->files;
	struct planned_file file;
	int error = 0;

	for (uint32_t i = 0; !error && i < sandbox->start.files; i++) {
		*index = (int)i + 1;
		error = plan_file(&place, end_of_plan(sandbox), &file);
		if (!error)
			error = write_file(box, &file);
	}
	if (error)
		return error;
	return place == end_of_plan(sandbox) ? 0 : EBADMSG;
}

/* As root, and given to the job one by one: a change of ids, were it only setfsuid(), clears PDEATHSIG. */
int write_files(struct sandbox *sandbox, int *index)
{
	int box = open("/box", O_PATH | O_DIRECTORY | O_CLOEXEC), error;

	if (box < 0)
		return errno;
	error = write_each_file(sandbox, box, index);
	close(box);
	return error;
}

/* First out of the way of 0, 1 and 2, where the service's descriptors may have landed. */
int put_stdio(struct sandbox *sandbox, int *index)
{
	int high[STDIO];

	for (int i = 0; i < STDIO; i++) {
		*index = i;
		high[i] = fcntl(sandbox->stdio[i], F_DUPFD_CLOEXEC, DESCRIPTORS_MAX);
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
	int keep[STDIO + 2 + CPU_COUNTERS_MAX] = { 0, 1, 2, sandbox->control };
	size_t count = STDIO + 1;

	(void)index;
	if (sandbox->handover >= 0)
		keep[count++] = sandbox->handover;
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

	(void)index;
	if (chdir("/box"))
		return errno;
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
	struct news news = { .header.type = TYPE_STARTED };
	int error;

	/* What came with the job and is not its stdio has been closed, not only marked to be. */
	if (is_open(sandbox->came_last)) {
		*index = 1;
		return ENOTRECOVERABLE;
	}
	sched_yield();
	error = cpu_read(sandbox->counters, sandbox->make->cpu_counters, &news.cpu);
	if (error)
		return error;
	news.clock_ns = clock_now();
	return tell(sandbox, &news, -1);
}

int execute(struct sandbox *sandbox, int *index)
{
	(void)index;
	execve(sandbox->program, sandbox->arguments, sandbox->variables);
	return errno;
}

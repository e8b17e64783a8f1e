/*
 * files.c - a job's input files: written by init, as root, beneath /box, before anything of the job runs.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plan.h"

int open_beneath(int directory, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

int give_to_job(int directory, const char *path)
{
	return fchownat(directory, path, JOB_ID, JOB_ID, AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

/* Every directory on the way to `path`, which the service has checked has no "." or "..". */
int make_parents(int box, const char *path)
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

static int write_each_file(const struct sandbox *sandbox, const char *place, int box, int *index)
{
	const char *end = place + sandbox->start.plan_bytes - sandbox->start.hosts_bytes;
	struct planned_file file;
	int error = plan_skip(&place, end, &sandbox->start);

	for (uint32_t i = 0; !error && i < sandbox->start.files; i++) {
		*index = (int)i + 1;
		error = plan_file(&place, end, &file);
		if (!error)
			error = write_file(box, &file);
	}
	if (error)
		return error;
	/* The names of files that are lent stand after them. */
	return place == end || sandbox->start.lent_files ? 0 : EBADMSG;
}

/* As root, and given to the job one by one: a change of ids, were it only setfsuid(), clears PDEATHSIG. */
int write_files(struct sandbox *sandbox, int *index)
{
	const char *plan;
	int box, error;

	if (!sandbox->start.files)
		return 0;
	error = map_bytes(sandbox->received[JOB_PLAN], sandbox->start.plan_bytes, &plan);
	if (error)
		return error;
	box = open("/box", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (box < 0)
		return errno;
	error = write_each_file(sandbox, plan, box, index);
	close(box);
	return error;
}

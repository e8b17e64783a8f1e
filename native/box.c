/*
 * box.c - /box as an earlier sandbox left it, copied to this one's own.
 *
 * Copied, and not shown by an overlay with room for changes: for each directory that a job holds open there the kernel
 * keeps a list of all that is in it (fs/overlayfs/readdir.c), in memory that no cgroup is charged. What is copied is
 * charged to this job, is all its own, and tells nothing of those who have seen it before.
 *
 * What it is copied from was a hostile program's, and is static: see freeze.c. What it is copied to only init has
 * seen so far; what is there already, of the job's own input, stays.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "walk.h"

/* What is being copied to: the directory of each depth, and what it is to be like in the end. */
struct copy {
	int to[DEPTH_MAX];
	struct stat about[DEPTH_MAX];
};

/* Set-id bits would mean nothing: the mount is nosuid. */
static int finish(int fd, const struct stat *about)
{
	const struct timespec times[2] = { about->st_atim, about->st_mtim };
	int error = 0;

	if (fchown(fd, JOB_ID, JOB_ID) || fchmod(fd, about->st_mode & 0777) || futimens(fd, times))
		error = errno;
	close(fd);
	return error;
}

/* From one place in a file to another, where there is something: what was never written takes no memory. */
static int copy_data(int from, int to, off_t start, off_t end)
{
	if (lseek(to, start, SEEK_SET) < 0)
		return errno;
	while (start < end) {
		ssize_t sent = sendfile(to, from, &start, (size_t)(end - start));

		if (sent < 0)
			return errno;
		if (!sent)
			return EIO;
	}
	return 0;
}

static int copy_content(int from, int to, off_t size)
{
	off_t end = 0;
	int error = ftruncate(to, size) ? errno : 0;

	while (!error) {
		off_t start = lseek(from, end, SEEK_DATA);

		if (start < 0)
			return errno == ENXIO ? 0 : errno;
		end = lseek(from, start, SEEK_HOLE);
		error = end < 0 ? errno : copy_data(from, to, start, end);
	}
	return error;
}

static int copy_file(int directory, int to, const char *name, const struct stat *about)
{
	int from, made, error;

	made = openat(to, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (made < 0)
		return errno;
	from = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	error = from < 0 ? errno : copy_content(from, made, about->st_size);
	if (from >= 0)
		close(from);
	if (!error)
		return finish(made, about);
	close(made);
	return error;
}

static int copy_link(int directory, int to, const char *name)
{
	char target[PATH_BYTES_MAX];
	ssize_t length = readlinkat(directory, name, target, sizeof target - 1);

	if (length < 0)
		return errno;
	target[length] = 0;
	return symlinkat(target, to, name) ? errno : give_to_job(to, name);
}

static int copy_fifo(int to, const char *name, const struct stat *about)
{
	if (mkfifoat(to, name, 0600) || fchmodat(to, name, about->st_mode & 0777, 0))
		return errno;
	return give_to_job(to, name);
}

/* One that is there already is gone into; anything else of that name stays, alone. */
static int copy_directory(struct copy *copy, int depth, const char *name, const struct stat *about, int *enter)
{
	int *below = &copy->to[depth + 1];

	if (mkdirat(copy->to[depth], name, 0700) && errno != EEXIST)
		return errno;
	*below = openat(copy->to[depth], name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*below < 0) {
		*enter = 0;
		return errno == ENOTDIR || errno == ELOOP ? 0 : errno;
	}
	copy->about[depth + 1] = *about;
	return 0;
}

static int copy_entry(void *context, int depth, int directory, const char *name, const struct stat *about, int *enter)
{
	struct copy *copy = context;
	int to = copy->to[depth], error = 0;

	if (S_ISDIR(about->st_mode) && depth + 1 < DEPTH_MAX)
		return copy_directory(copy, depth, name, about, enter);
	if (S_ISREG(about->st_mode))
		error = copy_file(directory, to, name, about);
	else if (S_ISLNK(about->st_mode))
		error = copy_link(directory, to, name);
	else if (S_ISFIFO(about->st_mode))
		error = copy_fifo(to, name, about);
	/* A socket is nothing without who listens. */
	return error == EEXIST ? 0 : error;
}

static int leave_directory(void *context, int depth)
{
	struct copy *copy = context;

	return finish(copy->to[depth], &copy->about[depth]);
}

int copy_box(struct sandbox *sandbox, int *index)
{
	static struct copy copy;
	int error;

	(void)index;
	if (!sandbox->start.keeps)
		return 0;
	copy.to[0] = open("/box", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy.to[0] < 0)
		return errno;
	error = walk(places_of(sandbox)[0], copy_entry, leave_directory, &copy);
	close(copy.to[0]);
	return error;
}

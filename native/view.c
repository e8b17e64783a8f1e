/*
 * view.c - what the supervisor sees of the host: what sandboxes are made of, and nothing else.
 *
 *   /             tmpfs, read-only
 *   /proc, /dev   the host's: id maps are written through the one, devices are bound from the other, and the
 *                 kernel lets a user namespace mount a procfs only where one can be seen
 *   /usr ...      the directories of the host that images are made of
 *   .             the service's private directory
 *
 * All under the names that they have on the host, the other directories on the way to them being empty.
 * Every sandbox begins with a copy of the supervisor's mounts and ends with leaving them: so they cost each
 * of them twice, and a host can have hundreds. What is not here, no sandbox can reach before its pivot either,
 * and the host can unmount it whatever we do.
 */
#include "view.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VIEW_OPTIONS "size=64k,nr_inodes=64,mode=0755"

/* Every directory on the way to `path`, from its character `from` on, and itself. */
static int make_directories(char *path, size_t from)
{
	for (size_t i = from + 1;; i++) {
		char end = path[i];

		if (end && end != '/')
			continue;
		path[i] = 0;
		if (mkdir(path, 0755) && errno != EEXIST)
			return errno;
		path[i] = end;
		if (!end)
			return 0;
	}
}

/* `source` as `target`, an absolute path, beneath `place`. */
static int bind_beneath(const char *place, const char *source, const char *target, unsigned long flags)
{
	char path[2 * PATH_MAX];
	int length = snprintf(path, sizeof path, "%s%s", place, target), error;

	if (length < 0 || (size_t)length >= sizeof path)
		return ENAMETOOLONG;
	error = make_directories(path, strlen(place));
	if (error)
		return error;
	return mount(source, path, NULL, MS_BIND | flags, NULL) ? errno : 0;
}

/* With what is mounted beneath: the kernel does not let us look under it. */
static int bind_as_it_is(const char *place, const char *directory)
{
	return bind_beneath(place, directory, directory, MS_REC);
}

static int fill(const char *place, const char *own, char *const *directories)
{
	int error = bind_as_it_is(place, "/proc");

	if (!error)
		error = bind_as_it_is(place, "/dev");
	while (!error && *directories)
		error = bind_as_it_is(place, *directories++);
	/* Alone: `place` is in it, and what is mounted there. */
	return error ? error : bind_beneath(place, ".", own, 0);
}

/* pivot_root(2), NOTES: with both arguments "." the old root comes to lie over the new one. */
int leave_old_root(void)
{
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return errno;
	return 0;
}

int narrow_view(const char *place, char *const *directories)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	char own[PATH_MAX];
	int error;

	if (!getcwd(own, sizeof own))
		return errno;
	/* Not private: what the host unmounts must not stay busy because of us. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return errno;
	if (mount("tmpfs", place, "tmpfs", flags, VIEW_OPTIONS))
		return errno;
	error = fill(place, own, directories);
	if (error)
		return error;
	if (chdir(place))
		return errno;
	error = leave_old_root();
	if (error)
		return error;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL))
		return errno;
	return chdir(own) ? errno : 0;
}

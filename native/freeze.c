/*
 * freeze.c - give all that a job left in /box to one owner, so that other sandboxes can use it.
 *
 * The ids that own it are those of a sandbox that is gone; in another it would be nobody's, and could not even be
 * copied. A process of its own does it: the tree is as large as the job's limits allow. Nothing that could change it
 * lives any more, no other mount of it can be written to, and no name is followed that is a link.
 */
#include "layers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "setup.h"

enum { ENTRIES_BYTES = 4096 };

/* A directory that is being read. */
struct level {
	int fd;
	long at, end;
	_Alignas(struct dirent64) char entries[ENTRIES_BYTES];
};

/* What its owner may, all may. Neither set-id bits nor the sticky one mean anything to another owner. */
static mode_t for_all(mode_t mode)
{
	mode_t own = mode >> 6 & 7;

	return own << 6 | own << 3 | own;
}

static int give(int directory, const char *name, uint32_t owner, bool *is_directory)
{
	struct stat about;

	if (fstatat(directory, name, &about, AT_SYMLINK_NOFOLLOW))
		return errno;
	*is_directory = S_ISDIR(about.st_mode);
	if (fchownat(directory, name, owner, owner, AT_SYMLINK_NOFOLLOW))
		return errno;
	/* After it, which takes set-id bits away; and not of a link, which would be followed. */
	if (S_ISLNK(about.st_mode))
		return 0;
	return fchmodat(directory, name, for_all(about.st_mode), 0) ? errno : 0;
}

static int enter(struct level *level, int parent, const char *name)
{
	level->fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	level->at = level->end = 0;
	return level->fd < 0 ? errno : 0;
}

/* The next entry, or NULL: there are no more, or `error` says why not. */
static const char *next_name(struct level *level, int *error)
{
	const struct dirent64 *entry;

	*error = 0;
	if (level->at == level->end) {
		level->end = syscall(SYS_getdents64, level->fd, level->entries, ENTRIES_BYTES);
		level->at = 0;
		if (level->end < 0)
			*error = errno;
		if (level->end <= 0)
			return NULL;
	}
	entry = (const struct dirent64 *)(level->entries + level->at);
	level->at += entry->d_reclen;
	return entry->d_name;
}

static int give_all(int root, uint32_t owner)
{
	static struct level levels[FROZEN_DEPTH_MAX];
	struct level *level = levels;
	bool is_directory;
	int error = give(root, ".", owner, &is_directory);

	if (!error)
		error = enter(level, root, ".");
	while (!error) {
		const char *name = next_name(level, &error);

		if (error || (!name && level == levels))
			break;
		if (!name) {
			close(level--->fd);
			continue;
		}
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		error = give(level->fd, name, owner, &is_directory);
		if (error || !is_directory)
			continue;
		if (level + 1 == levels + FROZEN_DEPTH_MAX)
			return ELOOP;
		error = enter(level + 1, level->fd, name);
		level++;
	}
	return error;
}

/* Of what root of the outer namespace may do, only this. */
static int keep_capabilities(void)
{
	const uint32_t kept = 1U << CAP_CHOWN | 1U << CAP_FOWNER | 1U << CAP_DAC_READ_SEARCH;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct sets[2] = { { .effective = kept, .permitted = kept } };

	return syscall(SYS_capset, &header, sets) ? errno : 0;
}

static _Noreturn void freeze(pid_t supervisor, int box, uint32_t owner)
{
	int error = prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) ? errno : 0;

	if (!error && getppid() != supervisor)
		error = ECANCELED;
	/* The supervisor's sockets came along: held here they would hide its death from others. */
	if (!error)
		error = close_all_but(&box, 1);
	if (!error)
		error = keep_capabilities();
	_exit(error ? error : give_all(box, owner));
}

int begin_freeze(int box, uint32_t owner, int *pidfd)
{
	struct mount_attr writable = { .attr_clr = MOUNT_ATTR_RDONLY };
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};
	pid_t supervisor = getpid(), pid;
	int error;

	if (mount_setattr(box, "", AT_EMPTY_PATH, &writable, sizeof writable))
		return errno;
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (!pid)
		freeze(supervisor, box, owner);
	if (pid > 0)
		return 0;
	error = errno;
	/* The kernel may have left a number there before it failed. */
	*pidfd = -1;
	return error;
}

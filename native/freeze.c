/*
 * freeze.c - /box of a sandbox that has ended, kept for others; and what is kept, handed to a sandbox.
 *
 * Whoever owned it is nobody in another sandbox, whose init could not even read it all. So it is given to an owner
 * that all know. A process of its own does that: the tree is as large as the job's limits allow. Nothing that could
 * change it lives any more, no other mount of it can be written to, and no name is followed that is a link.
 *
 * It is kept where the supervisor alone has mounts: nothing that any sandbox does reaches it there. It goes with the
 * supervisor, or when the service removes the directory that it is mounted on.
 */
#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "setup.h"
#include "walk.h"

static int open_directory(const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static int open_place(const char *path, int *place)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSYMFOLLOW,
	};
	int directory = open_directory(path), error = 0;

	if (directory < 0)
		return errno;
	*place = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*place < 0)
		error = errno;
	close(directory);
	if (error)
		return error;
	if (!mount_setattr(*place, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
		return 0;
	error = errno;
	close(*place);
	return error;
}

int open_places(const char *paths, uint32_t count, int *fds)
{
	for (uint32_t i = 0; i < count; i++) {
		int error = open_place(paths, &fds[i]);

		if (error) {
			while (i)
				close(fds[--i]);
			return error;
		}
		paths += strlen(paths) + 1;
	}
	return 0;
}

/* Who gets it, and how much more of it may be copied. */
struct gift {
	uint32_t owner;
	uint32_t left;
};

/* Each stretch of data takes a moment to copy, however short it is. */
static int count_stretches(struct gift *gift, int directory, const char *name)
{
	int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	off_t at = 0;

	if (fd < 0)
		return errno;
	while (gift->left && (at = lseek(fd, at, SEEK_DATA)) >= 0 && (at = lseek(fd, at, SEEK_HOLE)) >= 0)
		gift->left--;
	close(fd);
	return 0;
}

static int give(void *context, int depth, int directory, const char *name, const struct stat *about, int *enter)
{
	struct gift *gift = context;
	int error = 0;

	(void)depth, (void)enter;
	if (S_ISREG(about->st_mode))
		error = count_stretches(gift, directory, name);
	if (error)
		return error;
	if (!gift->left)
		return E2BIG;
	gift->left--;
	return fchownat(directory, name, gift->owner, gift->owner, AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

/*
 * Of all that root of the outer namespace may do this alone (a change of owner takes set-id bits away, which takes
 * CAP_FOWNER), as `owner`, who is root of no sandbox: user_namespaces(7),
 * its owner has all capabilities in a namespace.
 */
static int keep_capabilities(uint32_t owner)
{
	const uint32_t kept = 1U << CAP_CHOWN | 1U << CAP_DAC_READ_SEARCH | 1U << CAP_FOWNER;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct sets[2] = { { .effective = kept, .permitted = kept } };

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setgroups(0, NULL) || setresgid(owner, owner, owner) ||
	    setresuid(owner, owner, owner))
		return errno;
	return syscall(SYS_capset, &header, sets) ? errno : 0;
}

/* The change of ids clears PDEATHSIG, so that comes after it. */
static int prepare(pid_t supervisor, int *box, uint32_t owner)
{
	/* The supervisor's sockets came along: held here they would hide its death from others. */
	int error = close_all_but(box, 1);

	if (!error)
		error = keep_capabilities(owner);
	if (!error && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		error = errno;
	return !error && getppid() != supervisor ? ECANCELED : error;
}

static _Noreturn void freeze(pid_t supervisor, int box, uint32_t owner)
{
	struct gift gift = { owner, STRETCHES_MAX };
	int error = prepare(supervisor, &box, owner);

	/* Its root as well: init could not even open that if only its former owner may. */
	if (!error && fchownat(box, "", owner, owner, AT_EMPTY_PATH))
		error = errno;
	if (!error)
		error = walk(box, give, NULL, &gift);
	_exit(error);
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

int end_freeze(int box, const char *place)
{
	struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };

	if (mount_setattr(box, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
		return errno;
	return move_mount(box, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) ? errno : 0;
}

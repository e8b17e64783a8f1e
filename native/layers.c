/*
 * layers.c - /box of a sandbox that has ended, kept for others; and what is kept, handed to a sandbox.
 *
 * It is kept where the supervisor alone has mounts: nothing that any sandbox does reaches it there. It goes with the
 * supervisor, or when the service removes the directory that it is mounted on.
 */
#include "layers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_directory(const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static int open_layer(const char *path, int *layer)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
	};
	int directory = open_directory(path), error = 0;

	if (directory < 0)
		return errno;
	*layer = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*layer < 0)
		error = errno;
	close(directory);
	if (error)
		return error;
	if (!mount_setattr(*layer, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
		return 0;
	error = errno;
	close(*layer);
	return error;
}

int open_layers(const char *paths, uint32_t count, int *fds)
{
	for (uint32_t i = 0; i < count; i++) {
		int error = open_layer(paths, &fds[i]);

		if (error) {
			while (i)
				close(fds[--i]);
			return error;
		}
		paths += strlen(paths) + 1;
	}
	return 0;
}

int end_freeze(int box, const char *place)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
		/* As files of a layer are executed, and its links followed. */
		.attr_clr = MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
	};

	if (mount_setattr(box, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
		return errno;
	return move_mount(box, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) ? errno : 0;
}

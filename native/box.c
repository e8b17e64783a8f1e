/*
 * box.c - /box: the tmpfs that a job writes to and, where its job has layers, the overlay that lies over it.
 *
 * A layer is a directory that an earlier sandbox left, or one of files that are kept for many jobs. It comes from
 * the supervisor as a detached mount. By overlay and not as it is: a file in two sandboxes is two inodes, locks do
 * not leak, and what the job writes is its own.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where layers are mounted until the overlay has them: no image has a say in what lies there. */
#define PLACE "/dev/shm"
/* Itself, a directory for each layer, and an empty one. */
#define PLACE_OPTIONS "size=4k,nr_inodes=10,mode=0755"
#define OVERLAY_FLAGS (MS_NOSUID | MS_NODEV)
#define EMPTY "empty"

static const char *const names[LAYERS_MAX] = { "0", "1", "2", "3", "4", "5", "6", "7" };

static int restrict_to_outputs(int mount)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
	};

	return mount_setattr(mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes) ? errno : 0;
}

int clone_for_outputs(int fd, int *outputs)
{
	*outputs = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return *outputs < 0 ? errno : restrict_to_outputs(*outputs);
}

static int place_layers(const struct sandbox *sandbox, int *index)
{
	const int *layers = sandbox->received + JOB_DESCRIPTORS;

	if (sandbox->start.explains)
		layers += EXPLAINING_DESCRIPTORS;
	if (mount("tmpfs", PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, PLACE_OPTIONS) || chdir(PLACE))
		return errno;
	for (uint32_t i = 0; i < sandbox->start.layers; i++) {
		*index = (int)i + 1;
		if (mkdir(names[i], 0755))
			return errno;
		if (move_mount(layers[i], "", AT_FDCWD, names[i], MOVE_MOUNT_F_EMPTY_PATH))
			return errno;
	}
	return 0;
}

/* Attributes of the user's: see root.c. What was deleted is told by whiteouts, which need none. */
static int mount_over_box(uint32_t layers)
{
	char options[128] = "userxattr,upperdir=/box/upper,workdir=/box/work,lowerdir=0";

	for (uint32_t i = 1; i < layers; i++) {
		strcat(options, ":");
		strcat(options, names[i]);
	}
	if (mkdir("/box/upper", 0755) || chown("/box/upper", JOB_ID, JOB_ID) || mkdir("/box/work", 0700))
		return errno;
	return mount("overlay", "/box", "overlay", OVERLAY_FLAGS, options) ? errno : 0;
}

/*
 * It is there twice. Below lies what outputs are read through when the job is dead, on top what the job sees: to the
 * kernel a detached mount would be one more namespace, and by now there can be none.
 */
static int mount_cover_twice(int *outputs)
{
	*outputs = open("/box", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*outputs < 0 || fchdir(*outputs) || mount(".", ".", NULL, MS_BIND, NULL))
		return errno;
	return restrict_to_outputs(*outputs);
}

static int report_cover(const struct sandbox *sandbox)
{
	struct news news = { .header.type = TYPE_COVERED };
	int outputs, error = mount_cover_twice(&outputs);

	if (!error)
		error = tell(sandbox, &news, &outputs, 1);
	if (outputs >= 0)
		close(outputs);
	return error;
}

/* The last layer's, over an empty one: a file of it has to be another inode in each sandbox, too. */
static int open_stdin(struct sandbox *sandbox)
{
	char options[] = "userxattr,lowerdir=?:" EMPTY;
	int fd;

	*strchr(options, '?') = *names[sandbox->start.layers - 1];
	if (mkdir(EMPTY, 0755) || mount("overlay", EMPTY, "overlay", OVERLAY_FLAGS | MS_RDONLY | MS_NOEXEC, options))
		return errno;
	fd = open(EMPTY "/stdin", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno;
	close(sandbox->received[0]);
	sandbox->received[0] = fd;
	return 0;
}

int cover_box(struct sandbox *sandbox, int *index)
{
	uint32_t layers = sandbox->start.layers - sandbox->start.stdin_layer;
	int error;

	if (!sandbox->start.layers)
		return 0;
	error = place_layers(sandbox, index);
	*index = error ? *index : LAYERS_MAX + 1;
	if (!error && layers)
		error = mount_over_box(layers);
	*index = error ? *index : LAYERS_MAX + 2;
	if (!error && sandbox->start.stdin_layer)
		error = open_stdin(sandbox);
	*index = error ? *index : LAYERS_MAX + 3;
	if (!error && layers)
		error = report_cover(sandbox);
	*index = error ? *index : LAYERS_MAX + 4;
	/* What is mounted there is the overlay's own by now. */
	if (!error && (chdir("/") || umount2(PLACE, MNT_DETACH)))
		error = errno;
	return error;
}

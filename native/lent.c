/*
 * lent.c - files that are kept for many jobs, seen in /box without a copy.
 *
 * By a read-only overlay, out of which each is bound to its name: a file in two sandboxes is two inodes, and locks do
 * not leak. Of the overlay itself nothing can be seen or opened: see box.c for what that would cost.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"

/* Where it is put together: no image has a say in what lies there. */
#define PLACE "/dev/shm"
#define PLACE_OPTIONS "size=4k,nr_inodes=4,mode=0755"
/* An overlay without an upper directory needs two lower ones. */
#define OPTIONS "userxattr,lowerdir=layer:empty"
#define FLAGS (MS_RDONLY | MS_NOSUID | MS_NODEV)

static int mount_files(const struct sandbox *sandbox)
{
	int layer = places_of(sandbox)[sandbox->start.keeps];

	if (mount("tmpfs", PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, PLACE_OPTIONS) || chdir(PLACE))
		return errno;
	if (mkdir("layer", 0755) || mkdir("empty", 0755) || mkdir("files", 0755))
		return errno;
	if (move_mount(layer, "", AT_FDCWD, "layer", MOVE_MOUNT_F_EMPTY_PATH))
		return errno;
	return mount("overlay", "files", "overlay", FLAGS, OPTIONS) ? errno : 0;
}

/* A regular file, bound over an empty one. It has the flags of the overlay's mount. */
static int bind_file(int file, int target)
{
	char source[32], name[32];
	struct stat about;

	if (fstat(file, &about))
		return errno;
	if (!S_ISREG(about.st_mode))
		return EINVAL;
	return mount(descriptor_path(file, source), descriptor_path(target, name), NULL, MS_BIND, NULL) ? errno : 0;
}

static int show_file(int files, int box, const char *path)
{
	int error = make_parents(box, path), file, target;

	if (error)
		return error;
	file = open_beneath(files, path, O_PATH, 0);
	if (file < 0)
		return errno;
	target = open_beneath(box, path, O_CREAT | O_EXCL | O_RDONLY, 0444);
	error = target < 0 ? errno : bind_file(file, target);
	if (target >= 0)
		close(target);
	close(file);
	return error;
}

/* After the files of the plan stand the names of these. */
static int find_names(const struct sandbox *sandbox, const char **place, const char **end)
{
	struct planned_file file;
	int error = map_bytes(sandbox->received[JOB_PLAN], sandbox->start.plan_bytes, place);

	if (error)
		return error;
	*end = *place + sandbox->start.plan_bytes - sandbox->start.hosts_bytes;
	error = plan_skip(place, *end, &sandbox->start);
	for (uint32_t i = 0; !error && i < sandbox->start.files; i++)
		error = plan_file(place, *end, &file);
	return error;
}

static int show_each(const struct sandbox *sandbox, int files, int box, int *index)
{
	const char *place, *end, *path;
	int error = find_names(sandbox, &place, &end);

	for (uint32_t i = 0; !error && i < sandbox->start.lent_files; i++) {
		*index = (int)i + 1;
		path = plan_string(&place, end);
		error = path ? show_file(files, box, path) : EBADMSG;
	}
	return error ? error : place == end ? 0 : EBADMSG;
}

static int show_files(const struct sandbox *sandbox, int *index)
{
	int files = open("files/box", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), box, error;

	if (files < 0)
		return errno;
	box = open("/box", O_PATH | O_DIRECTORY | O_CLOEXEC);
	error = box < 0 ? errno : show_each(sandbox, files, box, index);
	if (box >= 0)
		close(box);
	close(files);
	return error;
}

/* By a name in the job's own root, through which it can be opened anew: /dev/stdin leads there. */
static int open_stdin(struct sandbox *sandbox)
{
	int file = open("files/stdin", O_PATH | O_NOFOLLOW | O_CLOEXEC), target, error;

	if (file < 0)
		return errno;
	target = open("/dev/" LENT_STDIN, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	error = target < 0 ? errno : bind_file(file, target);
	if (target >= 0)
		close(target);
	close(file);
	if (error)
		return error;
	close(sandbox->received[0]);
	sandbox->received[0] = open("/dev/" LENT_STDIN, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return sandbox->received[0] < 0 ? errno : 0;
}

int show_lent(struct sandbox *sandbox, int *index)
{
	int error;

	if (!sandbox->start.lends)
		return 0;
	error = mount_files(sandbox);
	if (!error)
		error = show_files(sandbox, index);
	if (!error && sandbox->start.lends_stdin) {
		*index = -1;
		error = open_stdin(sandbox);
	}
	/* What was bound has the overlay as long as it needs it. */
	if (!error && (chdir("/") || umount2(PLACE, MNT_DETACH)))
		error = errno;
	return error;
}

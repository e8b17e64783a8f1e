/*
 * root.c - the file system that a job sees.
 *
 *   /           overlay of the image's layers, read-only
 *   /proc       fresh, of the sandbox's own pid namespace, masked, read-only
 *   /dev        tmpfs with five harmless devices, read-only
 *   /dev/shm, /tmp, /box    tmpfs of the job's own, bounded in bytes and in inodes
 *
 * Until enter_root() the working directory is the new root and every target is relative to it.
 * The image is the operator's: its mount points are directories, never links, or the step fails.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Small until the job says how much: 0 would mean "no limit" to tmpfs. */
#define UNSIZED "size=4k,nr_inodes=2,"
/* Documentation/admin-guide/devices.txt: character device 1:3. */
#define NULL_DEVICE makedev(1, 3)
#define DEV_OPTIONS "size=16k,nr_inodes=32,mode=0755"

/* A mount point beneath `root` that is what it seems: no link on the way, not out of the root. */
static int open_target(int root, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW | flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* The path through which an open descriptor is named to mount(2). */
static const char *descriptor_path(int fd, char path[32])
{
	static const char prefix[] = "/proc/self/fd/";
	char digits[12];
	size_t count = 0, length = sizeof prefix - 1;

	memcpy(path, prefix, length);
	do
		digits[count++] = (char)('0' + fd % 10);
	while (fd /= 10);
	while (count)
		path[length++] = digits[--count];
	path[length] = 0;
	return path;
}

static int mount_beneath(int root, const char *source, const char *target, const char *type,
			 unsigned long flags, const char *options)
{
	uint64_t kind = flags & MS_BIND ? 0 : O_DIRECTORY;
	int fd = open_target(root, target, kind), error = 0;
	char path[32];

	if (fd < 0)
		return errno;
	if (mount(source, descriptor_path(fd, path), type, flags, options))
		error = errno;
	close(fd);
	return error;
}

static int mount_on(const char *source, const char *target, const char *type, unsigned long flags,
		    const char *options)
{
	return mount_beneath(AT_FDCWD, source, target, type, flags, options);
}

int make_mounts_private(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? errno : 0;
}

/* "lowerdir=" and the list, in `options`. */
static int overlay_options(char *options, size_t capacity, const char *lower)
{
	static const char name[] = "lowerdir=";
	size_t length = strlen(lower) + 1;

	if (sizeof name - 1 + length > capacity)
		return ENAMETOOLONG;
	memcpy(options, name, sizeof name - 1);
	memcpy(options + sizeof name - 1, lower, length);
	return 0;
}

/*
 * Without an upper directory an overlay is read-only by nature; MS_RDONLY says it once more.
 * The first overlay is the root itself, the others lie on directories in it. Paths of the plan are
 * relative to the service's private directory, where we still are: the ids of this sandbox may not
 * be allowed to walk there from the top.
 */
int mount_root(struct sandbox *sandbox, int *index)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
	const char *place = (const char *)(sandbox->make + 1);
	const char *target = place + strlen(place) + 1;
	char options[PATH_BYTES_MAX];
	int root = AT_FDCWD, error = 0;

	for (uint32_t i = 0; !error && i < sandbox->make->overlays; i++) {
		const char *lower = target + strlen(target) + 1;

		*index = (int)i;
		error = overlay_options(options, sizeof options, lower);
		if (!error)
			error = mount_beneath(root, "overlay", i ? target : place, "overlay", flags, options);
		if (!error && root < 0)
			root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (root < 0 && !error)
			error = errno;
		target = lower + strlen(lower) + 1;
	}
	if (!error && fchdir(root))
		error = errno;
	if (root >= 0)
		close(root);
	return error;
}

/*
 * What tells of the host or talks to its kernel, and is readable by all, or was a way out once. What
 * else is there has mode 0400, and no sandbox has its owner. Files go behind /dev/null, directories
 * behind an empty tmpfs.
 */
static const char *const masked_files[] = {
	"proc/bootconfig", "proc/cmdline", "proc/config.gz", "proc/diskstats",
	"proc/interrupts", "proc/iomem", "proc/ioports", "proc/kallsyms",
	"proc/kcore", "proc/key-users", "proc/keys", "proc/latency_stats", "proc/locks",
	"proc/modules", "proc/partitions", "proc/sched_debug", "proc/softirqs",
	"proc/sysrq-trigger", "proc/timer_list",
};

static const char *const masked_directories[] = {
	"proc/acpi", "proc/asound", "proc/bus", "proc/driver", "proc/dynamic_debug",
	"proc/fs",   "proc/irq",    "proc/scsi", "proc/sysvipc", "proc/tty",
};

/* Whether the masked path leads where it should: to the null device, or to an empty tmpfs. */
static int check_mask(const char *target)
{
	int fd = open_target(AT_FDCWD, target, 0), error = 0;
	struct statfs system;
	struct stat about;

	if (fd < 0)
		return errno;
	if (fstat(fd, &about) || fstatfs(fd, &system))
		error = errno;
	else if (S_ISDIR(about.st_mode) ? system.f_type != TMPFS_MAGIC :
					  !S_ISCHR(about.st_mode) || about.st_rdev != NULL_DEVICE)
		error = EXDEV;
	close(fd);
	return error;
}

/* A kernel that was built without the file has nothing there to hide. */
static int mask(const char *source, const char *target, const char *type, unsigned long flags)
{
	int error = mount_on(source, target, type, flags, type ? "size=4k,nr_inodes=1,mode=0555" : NULL);

	if (error == ENOENT)
		return 0;
	return error ? error : check_mask(target);
}

int mount_proc(struct sandbox *sandbox, int *index)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int error = mount_on("proc", "proc", "proc", flags, NULL);

	(void)sandbox;
	for (size_t i = 0; !error && i < COUNT(masked_files); i++) {
		*index = (int)i + 1;
		error = mask("/dev/null", masked_files[i], NULL, MS_BIND);
	}
	for (size_t i = 0; !error && i < COUNT(masked_directories); i++) {
		*index = (int)(COUNT(masked_files) + i + 1);
		error = mask("tmpfs", masked_directories[i], "tmpfs", flags | MS_RDONLY);
	}
	return error;
}

static const struct {
	const char *source, *target;
} devices[] = {
	{ "/dev/null", "dev/null" },	 { "/dev/zero", "dev/zero" },	  { "/dev/full", "dev/full" },
	{ "/dev/random", "dev/random" }, { "/dev/urandom", "dev/urandom" },
};

static const struct {
	const char *to, *path;
} links[] = {
	{ "/proc/self/fd", "dev/fd" },
	{ "/proc/self/fd/0", "dev/stdin" },
	{ "/proc/self/fd/1", "dev/stdout" },
	{ "/proc/self/fd/2", "dev/stderr" },
};

static int make_device(const char *source, const char *target)
{
	int fd = open(target, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);

	if (fd < 0)
		return errno;
	close(fd);
	return mount_on(source, target, NULL, MS_BIND, NULL);
}

int mount_dev(struct sandbox *sandbox, int *index)
{
	int error = mount_on("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS);

	(void)sandbox;
	for (size_t i = 0; !error && i < COUNT(devices); i++) {
		*index = (int)i + 1;
		error = make_device(devices[i].source, devices[i].target);
	}
	for (size_t i = 0; !error && i < COUNT(links); i++) {
		*index = (int)(COUNT(devices) + i + 1);
		error = symlink(links[i].to, links[i].path) ? errno : 0;
	}
	if (!error && mkdir("dev/shm", 01777))
		error = errno;
	return error;
}

static const struct {
	const char *target, *options;
	unsigned long flags;
} scratch[] = {
	/* First: see mount_box_twice(). */
	{ "box", UNSIZED "mode=0755,uid=1000,gid=1000", MS_NOSUID | MS_NODEV },
	{ "tmp", UNSIZED "mode=1777", MS_NOSUID | MS_NODEV },
	{ "dev/shm", UNSIZED "mode=1777", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/*
 * The tmpfs of /box is there twice. Below lies what outputs are read through when the job is dead:
 * read-only, and blind to links. On top lies what the job sees.
 */
static int mount_box_twice(struct sandbox *sandbox)
{
	const unsigned long outputs = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW;
	char path[32];
	int error = mount_on(NULL, scratch->target, NULL, MS_REMOUNT | MS_BIND | outputs, NULL);

	if (error)
		return error;
	sandbox->box = open_target(AT_FDCWD, scratch->target, O_DIRECTORY);
	if (sandbox->box < 0)
		return errno;
	error = mount_on(descriptor_path(sandbox->box, path), scratch->target, NULL, MS_BIND, NULL);
	return error ? error : mount_on(NULL, scratch->target, NULL, MS_REMOUNT | MS_BIND | scratch->flags, NULL);
}

int mount_scratch(struct sandbox *sandbox, int *index)
{
	int error = 0;

	for (size_t i = 0; !error && i < COUNT(scratch); i++) {
		*index = (int)i;
		error = mount_on("tmpfs", scratch[i].target, "tmpfs", scratch[i].flags,
				 scratch[i].options);
	}
	if (error)
		return error;
	*index = COUNT(scratch);
	return mount_box_twice(sandbox);
}

/* pivot_root(2), NOTES: with both arguments "." the old root comes to lie over the new one. */
int enter_root(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return errno;
	return 0;
}

int make_read_only(struct sandbox *sandbox, int *index)
{
	const unsigned long change = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC;

	(void)sandbox;
	if (mount(NULL, "/proc", NULL, change | MS_NODEV, NULL))
		return errno;
	*index = 1;
	return mount(NULL, "/dev", NULL, change, NULL) ? errno : 0;
}

int size_scratch(struct sandbox *sandbox, int *index)
{
	for (size_t i = 0; i < COUNT(scratch); i++) {
		char target[16] = "/";

		*index = (int)i;
		strcpy(target + 1, scratch[i].target);
		if (mount(NULL, target, NULL, MS_REMOUNT | scratch[i].flags,
			  sandbox->start.scratch_options))
			return errno;
	}
	return 0;
}

/*
 * root.c - the file system that a job sees.
 *
 *   /           overlay of the image's layers, read-only
 *   /proc       fresh, of the sandbox's own pid namespace, masked, read-only
 *   /dev        tmpfs with five harmless devices, read-only
 *   /dev/shm, /tmp, /box    tmpfs of the job's own, bounded in bytes and in inodes
 *   /etc/hosts  where a job has names to find: a file of init's, read-only
 *
 * Between mount_root() and enter_root() every step begins and ends with the new root as working directory,
 * and finds its targets from there. The image is the operator's: its mount points are directories, never
 * links, or the step fails. What is mounted on one is mounted on ".", from within.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "view.h"

/* Small until the job says how much: 0 would mean "no limit" to tmpfs. */
#define UNSIZED "size=4k,nr_inodes=2,"
/* Documentation/admin-guide/devices.txt: character device 1:3. */
#define NULL_DEVICE makedev(1, 3)
#define MASK_OPTIONS "size=4k,nr_inodes=1,mode=0555"
#define DEV_OPTIONS "size=16k,nr_inodes=32,mode=0755"
/* A directory and a file, of HOSTS_BYTES_MAX. */
#define HOSTS_OPTIONS "size=64k,nr_inodes=2,mode=0755"
/* No image has a say in what lies there. */
#define HOSTS_PLACE "/dev/shm"

/* A mount point beneath `root` that is what it seems: a directory, no link on the way, not out of the root. */
static int open_target(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int open_here(int *root)
{
	*root = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *root < 0 ? errno : 0;
}

static int go_into(int root, const char *target)
{
	int fd = open_target(root, target), error = 0;

	if (fd < 0)
		return errno;
	if (fchdir(fd))
		error = errno;
	close(fd);
	return error;
}

/* Back to where open_here() was; the first error stays. */
static int go_back(int root, int error)
{
	if (root < 0)
		return error;
	if (fchdir(root) && !error)
		error = errno;
	close(root);
	return error;
}

/* The working directory is then what the mount lies upon. */
static int mount_on(int root, const char *target, const char *type, unsigned long flags, const char *options)
{
	int error = go_into(root, target);

	if (!error && mount(type, ".", type, flags, options))
		error = errno;
	return error;
}

/* The working directory is then the root of the mount. */
static int mount_and_enter(int root, const char *target, const char *type, unsigned long flags,
			   const char *options)
{
	int error = mount_on(root, target, type, flags, options);

	return error ? error : go_into(root, target);
}

/* Whether what was mounted lies where it should. */
static int check_type(const char *path, long magic)
{
	struct statfs system;

	if (statfs(path, &system))
		return errno;
	return system.f_type == magic ? 0 : EXDEV;
}

const char *descriptor_path(int fd, char path[32])
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

int make_mounts_private(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? errno : 0;
}

/*
 * The list of layers, in `options`. What an image's layer has in place of those beneath is written in attributes
 * of the user's, for want of a right to the trusted ones (Documentation/filesystems/overlayfs.rst, "userxattr").
 */
static int overlay_options(char *options, size_t capacity, const char *lower)
{
	static const char name[] = "userxattr,lowerdir=";
	size_t length = strlen(lower) + 1;

	if (sizeof name - 1 + length > capacity)
		return ENAMETOOLONG;
	memcpy(options, name, sizeof name - 1);
	memcpy(options + sizeof name - 1, lower, length);
	return 0;
}

/* Not from within: the layers' paths are relative to the working directory. */
static int mount_overlay(int root, const char *target, const char *lower)
{
	/* Without an upper directory an overlay is read-only by nature; MS_RDONLY says it once more. */
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
	char options[PATH_BYTES_MAX], path[32];
	int error = overlay_options(options, sizeof options, lower), fd;

	if (error)
		return error;
	fd = open_target(root, target);
	if (fd < 0)
		return errno;
	if (mount("overlay", descriptor_path(fd, path), "overlay", flags, options))
		error = errno;
	close(fd);
	return error;
}

/*
 * The first overlay is the root itself, the others lie on directories in it. Paths of the plan are
 * relative to the service's private directory, where we still are: the ids of this sandbox may not
 * be allowed to walk there from the top.
 */
int mount_root(struct sandbox *sandbox, int *index)
{
	const char *place = (const char *)(sandbox->make + 1);
	const char *target = place + strlen(place) + 1;
	int root = -1, error = 0;

	for (uint32_t i = 0; !error && i < sandbox->make->overlays; i++) {
		const char *lower = target + strlen(target) + 1;

		*index = (int)i;
		error = mount_overlay(i ? root : AT_FDCWD, i ? target : place, lower);
		if (!error && !i)
			root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (!error && root < 0)
			error = errno;
		target = lower + strlen(lower) + 1;
	}
	return go_back(root, error);
}

/*
 * What tells of the host or talks to its kernel, and is readable by all, or was a way out once. What
 * else is there has mode 0400, and no sandbox has its owner. Files go behind /dev/null, directories
 * behind an empty tmpfs.
 */
static const char *const masked_files[] = {
	"bootconfig", "cmdline",   "config.gz", "diskstats",	 "interrupts", "iomem",	    "ioports",
	"kallsyms",   "kcore",	   "key-users", "keys",		 "latency_stats", "locks",  "modules",
	"partitions", "sched_debug", "softirqs", "sysrq-trigger", "timer_list",
};

static const char *const masked_directories[] = {
	"acpi", "asound", "bus", "driver", "dynamic_debug", "fs", "irq", "scsi", "sysvipc", "tty",
};

static int mask_file(const char *name)
{
	struct stat about;

	if (mount("/dev/null", name, NULL, MS_BIND, NULL) || lstat(name, &about))
		return errno;
	return S_ISCHR(about.st_mode) && about.st_rdev == NULL_DEVICE ? 0 : EXDEV;
}

/* One tmpfs for all, at `empty` once there is one: the rest of a mount costs a quarter of a superblock. */
static int mask_directory(const char **empty, const char *name)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (*empty ? mount(*empty, name, NULL, MS_BIND, NULL) :
		     mount("tmpfs", name, "tmpfs", flags, MASK_OPTIONS))
		return errno;
	*empty = name;
	return check_type(name, TMPFS_MAGIC);
}

/* In the root of a procfs, where every name is the kernel's own: one that it was built without hides nothing. */
static int mask_all(int *index)
{
	const char *empty = NULL;
	int error = 0;

	for (size_t i = 0; !error && i < COUNT(masked_files); i++) {
		*index = (int)i + 1;
		error = mask_file(masked_files[i]);
		error = error == ENOENT ? 0 : error;
	}
	for (size_t i = 0; !error && i < COUNT(masked_directories); i++) {
		*index = (int)(COUNT(masked_files) + i + 1);
		error = mask_directory(&empty, masked_directories[i]);
		error = error == ENOENT ? 0 : error;
	}
	return error;
}

int mount_proc(struct sandbox *sandbox, int *index)
{
	int root, error = open_here(&root);

	(void)sandbox;
	if (!error)
		error = mount_and_enter(root, "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (!error)
		error = check_type(".", PROC_SUPER_MAGIC);
	if (!error)
		error = mask_all(index);
	return go_back(root, error);
}

static const struct {
	const char *source, *name;
} devices[] = {
	{ "/dev/null", "null" },     { "/dev/zero", "zero" },	    { "/dev/full", "full" },
	{ "/dev/random", "random" }, { "/dev/urandom", "urandom" },
};

static const struct {
	const char *to, *name;
} links[] = {
	{ "/proc/self/fd", "fd" },
	{ "/proc/self/fd/0", "stdin" },
	{ "/proc/self/fd/1", "stdout" },
	{ "/proc/self/fd/2", "stderr" },
};

static int make_device(const char *source, const char *name)
{
	if (mknod(name, S_IFREG | 0666, 0) || mount(source, name, NULL, MS_BIND, NULL))
		return errno;
	return 0;
}

/* In the root of an empty tmpfs. */
static int fill_dev(int *index)
{
	int error = 0;

	for (size_t i = 0; !error && i < COUNT(devices); i++) {
		*index = (int)i + 1;
		error = make_device(devices[i].source, devices[i].name);
	}
	for (size_t i = 0; !error && i < COUNT(links); i++) {
		*index = (int)(COUNT(devices) + i + 1);
		error = symlink(links[i].to, links[i].name) ? errno : 0;
	}
	/* The last is for what a job reads as stdin, if that is kept for many jobs. */
	if (!error && (mkdir("shm", 01777) || mknod(LENT_STDIN, S_IFREG | 0444, 0)))
		error = errno;
	return error;
}

int mount_dev(struct sandbox *sandbox, int *index)
{
	int root, error = open_here(&root);

	(void)sandbox;
	if (!error)
		error = mount_and_enter(root, "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS);
	if (!error)
		error = check_type(".", TMPFS_MAGIC);
	if (!error)
		error = fill_dev(index);
	return go_back(root, error);
}

static const struct {
	const char *target, *options;
	unsigned long flags;
} scratch[] = {
	/* First: see keep_box(). */
	{ "box", UNSIZED "mode=0755,uid=1000,gid=1000", MS_NOSUID | MS_NODEV },
	{ "tmp", UNSIZED "mode=1777", MS_NOSUID | MS_NODEV },
	{ "dev/shm", UNSIZED "mode=1777", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/*
 * What outputs are read through when the job is dead, and what can be kept then: another mount of the tmpfs, which no
 * namespace has, read-only and blind to links.
 */
static int keep_box(struct sandbox *sandbox, int root)
{
	struct mount_attr outputs = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
	};
	int box = open_target(root, scratch->target), error = 0;

	if (box < 0)
		return errno;
	sandbox->box = open_tree(box, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (sandbox->box < 0 || mount_setattr(sandbox->box, "", AT_EMPTY_PATH, &outputs, sizeof outputs))
		error = errno;
	close(box);
	return error;
}

int mount_scratch(struct sandbox *sandbox, int *index)
{
	int root, error = open_here(&root);

	for (size_t i = 0; !error && i < COUNT(scratch); i++) {
		*index = (int)i;
		error = mount_on(root, scratch[i].target, "tmpfs", scratch[i].flags, scratch[i].options);
	}
	if (!error) {
		*index = COUNT(scratch);
		error = keep_box(sandbox, root);
	}
	return go_back(root, error);
}

int enter_root(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	return leave_old_root();
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

/* The last of the plan, as HOSTS_PLACE/hosts. */
static int write_hosts(const struct sandbox *sandbox)
{
	off_t place = (off_t)(sandbox->start.plan_bytes - sandbox->start.hosts_bytes);
	size_t left = sandbox->start.hosts_bytes;
	int fd = open(HOSTS_PLACE "/hosts", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444), error = 0;

	if (fd < 0)
		return errno;
	while (!error && left) {
		ssize_t sent = sendfile(fd, sandbox->received[JOB_PLAN], &place, left);

		error = sent < 0 ? errno : sent ? 0 : EBADMSG;
		left -= sent > 0 ? (size_t)sent : 0;
	}
	close(fd);
	return error;
}

/* The file of the image, or once it is covered what covers it. */
static int open_hosts(int *fd)
{
	struct open_how how = {
		/* Not O_NOFOLLOW, with which a link would be opened itself. */
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	*fd = (int)syscall(SYS_openat2, AT_FDCWD, "etc/hosts", &how, sizeof how);
	return *fd < 0 ? errno : 0;
}

static int cover_hosts(void)
{
	char path[32];
	int fd, error = open_hosts(&fd);

	if (error)
		return error;
	if (mount(HOSTS_PLACE "/hosts", descriptor_path(fd, path), NULL, MS_BIND, NULL))
		error = errno;
	close(fd);
	return error;
}

static int seal_hosts(void)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
	};
	int fd, error = open_hosts(&fd);

	if (error)
		return error;
	/* mount_setattr(2), EINVAL: this is no mount, so what covers the image's own lies elsewhere. */
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
		error = errno;
	close(fd);
	return error;
}

/*
 * A tmpfs of its own, of which nothing but the file is left in sight: what the job has to write to, and the limits
 * of that, stay as they are. It was put together over HOSTS_PLACE, where nobody has looked so far.
 */
int mount_hosts(struct sandbox *sandbox, int *index)
{
	int error;

	if (!sandbox->start.hosts_bytes)
		return 0;
	if (mount("tmpfs", HOSTS_PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, HOSTS_OPTIONS))
		return errno;
	*index = 1;
	error = write_hosts(sandbox);
	if (error)
		return error;
	*index = 2;
	error = cover_hosts();
	if (error)
		return error;
	*index = 3;
	error = seal_hosts();
	if (error)
		return error;
	*index = 4;
	return umount2(HOSTS_PLACE, MNT_DETACH) ? errno : 0;
}

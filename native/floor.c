/*
 * floor.c - the least that a fresh sandbox can cost on this kernel; scripts/bench compares with it.
 *
 *   floor RUNS        stdin is a user namespace with its ids mapped, as the supervisor's is
 *
 * It prints four lines, a name and milliseconds:
 *
 *   bare_ms    fork and exec of a static program, no isolation: median
 *   cold_ms    a sandbox made, used once and thrown away, one after the other: median
 *   start_ms   the same, made ahead of time, from "go" to its exit being known: median
 *   churn_ms   while sixteen are kept ready, what each costs with its successor: mean
 *
 * A sandbox here is what any has: seven namespaces of its own two user namespaces deep, an overlay
 * as root, proc, dev, tmp and pivot_root. It has no cgroup, no filter and no HTTP: these are the
 * product's to pay for. Ratios within one run mean something, times from two runs do not.
 *
 * All files are on a tmpfs that nobody else sees and that ends with this program. The program that
 * is run is this one: called "true", it does nothing.
 */
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACES                                                                            \
	(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |           \
	 CLONE_NEWUTS | CLONE_NEWCGROUP)

/* Sandboxes kept ready, and ids to go round: more than live at once, fewer than any delegated range. */
enum { READY = 16, IDS = 64, RUNS_MAX = 100000 };

#define PLACE "/tmp"
#define IMAGE PLACE "/image"
#define SCRATCH PLACE "/scratch"

struct sandbox {
	pid_t pid;
	int control;
};

struct floor {
	double bare_ms, cold_ms, start_ms, churn_ms;
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof *values, by_value);
	return values[count / 2];
}

static void send_byte(int fd)
{
	if (write(fd, "b", 1) != 1)
		err(1, "the other side is gone");
}

static void await_byte(int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1)
		errx(1, "the other side is gone");
}

static void mount_or_fail(const char *source, const char *target, const char *type,
			  unsigned long flags, const char *options)
{
	if (mount(source, target, type, flags, options))
		err(1, "mount on %s", target);
}

static void make_device(const char *name)
{
	char source[32], target[32];
	int fd;

	snprintf(source, sizeof source, "/dev/%s", name);
	snprintf(target, sizeof target, "dev/%s", name);
	fd = open(target, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
	if (fd < 0)
		err(1, "%s", target);
	close(fd);
	mount_or_fail(source, target, NULL, MS_BIND, NULL);
}

static void build_root(void)
{
	static const char *const devices[] = { "null", "zero", "full", "random", "urandom" };
	static const char layers[] = "lowerdir=" IMAGE ",upperdir=" SCRATCH "/upper,workdir=" SCRATCH
				     "/work,userxattr";

	mount_or_fail(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	mount_or_fail("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m");
	if (mkdir(SCRATCH "/root", 0755) || mkdir(SCRATCH "/upper", 0755) ||
	    mkdir(SCRATCH "/work", 0755))
		err(1, "mkdir in %s", SCRATCH);
	mount_or_fail("overlay", SCRATCH "/root", "overlay", 0, layers);
	if (chdir(SCRATCH "/root"))
		err(1, "chdir");
	mount_or_fail("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_or_fail("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k");
	for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
		make_device(devices[i]);
	mount_or_fail("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=16m");
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		err(1, "pivot_root");
}

static _Noreturn void execute(const char *path)
{
	char *arguments[] = { (char *)path, NULL }, *variables[] = { NULL };

	execve(path, arguments, variables);
	err(1, "%s", path);
}

/* What a sandbox does: wait for its maps, be built, say so, wait for "go". */
static _Noreturn void be_sandbox(int control)
{
	await_byte(control);
	if (setresgid(0, 0, 0) || setresuid(0, 0, 0))
		err(1, "become root of the sandbox");
	/* After the change of ids, which clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	build_root();
	send_byte(control);
	await_byte(control);
	execute("/bin/true");
}

static void write_map(pid_t pid, const char *name, int id)
{
	char path[64], map[32];
	int fd, length = snprintf(map, sizeof map, "0 %d 1", id);

	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, map, (size_t)length) != length)
		err(1, "%s", path);
	close(fd);
}

static struct sandbox make(int number)
{
	struct clone_args args = { .flags = NAMESPACES, .exit_signal = SIGCHLD };
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		err(1, "socketpair");
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		err(1, "clone3");
	if (!pid) {
		close(pair[0]);
		be_sandbox(pair[1]);
	}
	close(pair[1]);
	write_map(pid, "uid_map", 1 + number % IDS);
	write_map(pid, "gid_map", 1 + number % IDS);
	send_byte(pair[0]);
	return (struct sandbox){ pid, pair[0] };
}

static void await_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0)
		err(1, "waitpid");
	if (status)
		errx(1, "a program ended with status %#x", status);
}

/* From "go" to the exit being known. */
static double use(struct sandbox sandbox)
{
	double began;

	await_byte(sandbox.control);
	began = now_ms();
	send_byte(sandbox.control);
	await_end(sandbox.pid);
	close(sandbox.control);
	return now_ms() - began;
}

static double run_bare(void)
{
	double began = now_ms();
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (!pid)
		execute(IMAGE "/bin/true");
	await_end(pid);
	return now_ms() - began;
}

static double run_cold(int number)
{
	double began = now_ms();

	use(make(number));
	return now_ms() - began;
}

/* `times` has room for `runs`. */
static struct floor measure(double *times, int runs)
{
	struct sandbox ready[READY];
	struct floor floor;
	double began;

	for (int i = 0; i < runs; i++)
		times[i] = run_bare();
	floor.bare_ms = median(times, (size_t)runs);
	for (int i = 0; i < runs; i++)
		times[i] = run_cold(i);
	floor.cold_ms = median(times, (size_t)runs);
	for (int i = 0; i < READY; i++)
		ready[i] = make(i);
	began = now_ms();
	for (int i = 0; i < runs; i++) {
		times[i] = use(ready[i % READY]);
		ready[i % READY] = make(i + READY);
	}
	floor.churn_ms = (now_ms() - began) / runs;
	floor.start_ms = median(times, (size_t)runs);
	for (int i = 0; i < READY; i++)
		use(ready[i]);
	return floor;
}

static void enter_outer_namespace(void)
{
	if (setns(STDIN_FILENO, CLONE_NEWUSER) || setgroups(0, NULL) || setresgid(0, 0, 0) ||
	    setresuid(0, 0, 0))
		err(1, "become root of the outer namespace");
	if (unshare(CLONE_NEWNS | CLONE_NEWNET))
		err(1, "unshare");
	/* The maps of what is cloned from here are written through /proc, which must stay ours. */
	prctl(PR_SET_DUMPABLE, 1);
	mount_or_fail(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static void copy_self(const char *path)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to;
	struct stat about;

	to = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755);
	if (from < 0 || to < 0 || fstat(from, &about))
		err(1, "%s", path);
	if (sendfile(to, from, NULL, (size_t)about.st_size) != about.st_size)
		err(1, "%s", path);
	close(from);
	close(to);
}

static void build_image(void)
{
	static const char *const directories[] = {
		IMAGE, IMAGE "/bin", IMAGE "/dev", IMAGE "/proc", IMAGE "/tmp", SCRATCH,
	};

	mount_or_fail("tmpfs", PLACE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
		if (mkdir(directories[i], 0755))
			err(1, "%s", directories[i]);
	copy_self(IMAGE "/bin/true");
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	int runs = argc == 2 ? atoi(argv[1]) : 0;
	struct floor floor;
	double *times;

	if (!strcmp(slash ? slash + 1 : argv[0], "true"))
		return 0;
	if (runs < 1 || runs > RUNS_MAX)
		errx(2, "usage: floor RUNS <NAMESPACE");
	times = calloc((size_t)runs, sizeof *times);
	if (!times)
		err(1, "calloc");
	umask(022);
	enter_outer_namespace();
	build_image();
	floor = measure(times, runs);
	free(times);
	printf("bare_ms %.4f\ncold_ms %.4f\nstart_ms %.4f\nchurn_ms %.4f\n", floor.bare_ms,
	       floor.cold_ms, floor.start_ms, floor.churn_ms);
	return 0;
}

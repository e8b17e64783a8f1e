/* barriers.c - one function a barrier. The order they are raised in stands in setup.c. */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

int close_all_but(int *keep, size_t count)
{
	unsigned int from = 0;

	for (size_t i = 1; i < count; i++) {
		for (size_t j = i; j && keep[j] < keep[j - 1]; j--) {
			int other = keep[j];

			keep[j] = keep[j - 1];
			keep[j - 1] = other;
		}
	}
	for (size_t i = 0; i < count; i++) {
		unsigned int fd = (unsigned int)keep[i];

		if (fd > from && close_range(from, fd - 1, 0))
			return errno;
		from = fd + 1;
	}
	return close_range(from, ~0U, 0) ? errno : 0;
}

int keep_own_descriptors(struct sandbox *sandbox, int *index)
{
	int keep[1 + DESCRIPTORS_MAX + CPU_COUNTERS_MAX];
	size_t count = 0;

	(void)index;
	keep[count++] = sandbox->control;
	for (uint32_t i = 0; i < sandbox->make->joins; i++)
		keep[count++] = sandbox->joins[i];
	for (uint32_t i = 0; i < sandbox->make->cpu_counters; i++)
		keep[count++] = sandbox->counters[i];
	return close_all_but(keep, count);
}

/* In cgroup v2 we are already: clone3() put us there. */
int join_cgroup(struct sandbox *sandbox, int *index)
{
	for (uint32_t i = 0; i < sandbox->make->joins; i++) {
		*index = (int)i;
		if (write(sandbox->joins[i], "0", 1) != 1)
			return errno;
		close(sandbox->joins[i]);
	}
	return 0;
}

/* The time namespace is that of pid 2 and whatever comes from it: time_namespaces(7). */
int enter_namespaces(struct sandbox *sandbox, int *index)
{
	const int namespaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

	(void)index;
	return unshare(namespaces | (sandbox->make->time_namespace ? CLONE_NEWTIME : 0)) ? errno : 0;
}

int become_root_of_sandbox(struct sandbox *sandbox, int *index)
{
	char byte;

	(void)index;
	if (read(sandbox->control, &byte, 1) != 1)
		return ECANCELED;
	if (setresgid(INIT_ID, INIT_ID, INIT_ID) || setresuid(INIT_ID, INIT_ID, INIT_ID))
		return errno;
	/* The supervisor gave up the service's groups before it cloned us. */
	if (getgroups(0, NULL) != 0)
		return EPERM;
	umask(022);
	/*
	 * Another uid already keeps the job out of our memory; this keeps everyone out. The change of ids does
	 * as much, but not where fs.suid_dumpable is 1.
	 */
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? errno : 0;
}

int reset_signals(struct sandbox *sandbox, int *index)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t none;

	(void)sandbox;
	for (int signal = 1; signal < NSIG; signal++) {
		*index = signal;
		/* SIGKILL, SIGSTOP and the two that glibc keeps for itself cannot be set. */
		if (sigaction(signal, &by_default, NULL) && errno != EINVAL)
			return errno;
	}
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) ? errno : 0;
}

/*
 * The parent lives outside our pid namespace, so getppid() is 0 whether it lives or not: its end
 * of the socket tells.
 */
int die_with_parent(struct sandbox *sandbox, int *index)
{
	(void)index;
	return die_with_peer(sandbox->control);
}

int start_session(struct sandbox *sandbox, int *index)
{
	(void)sandbox;
	if (setsid() < 0)
		return errno;
	*index = 1;
	/* keyctl(2): a null name makes a new anonymous keyring. ENOSYS: a kernel without keys has none to leak. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0 && errno != ENOSYS)
		return errno;
	return 0;
}

/*
 * Documentation/admin-guide/sysctl/user.rst: limits that hold inside this user namespace. No
 * further namespaces (ENOSPC, a second lock behind the filter), and few of the objects that the
 * kernel counts per user and not per cgroup.
 */
static const struct {
	const char *name, *value;
} nesting[] = {
	{ "max_user_namespaces", "0" },
	{ "max_pid_namespaces", "0" },
	{ "max_mnt_namespaces", "0" },
	{ "max_net_namespaces", "0" },
	{ "max_ipc_namespaces", "0" },
	{ "max_uts_namespaces", "0" },
	{ "max_cgroup_namespaces", "0" },
	{ "max_time_namespaces", "0" },
	{ "max_inotify_instances", "16" },
	{ "max_inotify_watches", "1024" },
	{ "max_fanotify_groups", "0" },
	{ "max_fanotify_marks", "0" },
};

/* An image may have put something else where we write: what is written must reach the kernel. */
static bool is_of_proc(int fd)
{
	struct statfs about;

	return fstatfs(fd, &about) == 0 && about.f_type == PROC_SUPER_MAGIC;
}

static int set_maximum(int settings, const char *name, const char *value)
{
	ssize_t length = (ssize_t)strlen(value);
	int fd = openat(settings, name, O_WRONLY | O_CLOEXEC), error = 0;

	/* A kernel without the file was built without the object. */
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	if (write(fd, value, (size_t)length) != length)
		error = errno;
	close(fd);
	return error;
}

int forbid_nesting(struct sandbox *sandbox, int *index)
{
	int settings = open("/proc/sys/user", O_PATH | O_DIRECTORY | O_CLOEXEC), error;

	(void)sandbox;
	if (settings < 0)
		return errno;
	error = is_of_proc(settings) ? 0 : EXDEV;
	for (size_t i = 0; !error && i < COUNT(nesting); i++) {
		*index = (int)i;
		error = set_maximum(settings, nesting[i].name, nesting[i].value);
	}
	close(settings);
	return error;
}

int set_hostname(struct sandbox *sandbox, int *index)
{
	(void)sandbox;
	if (sethostname("jail", 4))
		return errno;
	*index = 1;
	return setdomainname("(none)", 6) ? errno : 0;
}

int raise_loopback(struct sandbox *sandbox, int *index)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0;

	(void)sandbox, (void)index;
	if (fd < 0)
		return errno;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		error = errno;
	close(fd);
	return error;
}

int set_rlimits(struct sandbox *sandbox, int *index)
{
	for (int i = 0; i < RLIMIT_COUNT; i++) {
		uint64_t value = sandbox->start.rlimits[i];
		const struct rlimit limit = { value, value };

		*index = i;
		if (setrlimit((__rlimit_resource_t)i, &limit))
			return errno;
	}
	return 0;
}

int change_ids(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	if (setresgid(JOB_ID, JOB_ID, JOB_ID) || setresuid(JOB_ID, JOB_ID, JOB_ID))
		return errno;
	return getgroups(0, NULL) == 0 ? 0 : EPERM;
}

/* Children inherit it, and the filter of a job that is pinned refuses the one call that would change it. */
int pin(struct sandbox *sandbox, int *index)
{
	const uint64_t *processors = sandbox->start.processors;
	uint64_t any = 0;

	(void)index;
	for (size_t i = 0; i < COUNT(sandbox->start.processors); i++)
		any |= processors[i];
	if (any && syscall(SYS_sched_setaffinity, 0, sizeof sandbox->start.processors, processors))
		return errno;
	return 0;
}

static int have_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &header, sets))
		return errno;
	for (size_t i = 0; i < COUNT(sets); i++)
		if (sets[i].effective | sets[i].permitted | sets[i].inheritable)
			return EPERM;
	return 0;
}

/* capabilities(7): uid 0 means nothing here, and none of this can be undone. */
#define LOCKED_SECUREBITS                                                          \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |           \
	 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |                 \
	 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

int bound_capabilities(struct sandbox *sandbox, int *index)
{
	(void)sandbox;
	/* EINVAL is the first number that the kernel has no capability for. */
	for (int capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
		*index = capability + 1;
	if (errno != EINVAL)
		return errno;
	*index = 100;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return errno;
	*index = 101;
	return prctl(PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0, 0, 0) ? errno : 0;
}

int drop_capabilities(struct sandbox *sandbox, int *index)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[2] = { 0 };

	(void)sandbox, (void)index;
	if (syscall(SYS_capset, &header, none))
		return errno;
	return have_capabilities();
}

int set_no_new_privs(struct sandbox *sandbox, int *index)
{
	(void)sandbox, (void)index;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? errno : 0;
}

/*
 * Documentation/userspace-api/spec_ctrl.rst: what a thread may speculate about is its own to decide, where
 * processor and boot options leave a choice; where they do not, PR_SPEC_PRCTL is not set.
 */
static const unsigned long speculation[] = { PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH };

int restrict_speculation(struct sandbox *sandbox, int *index)
{
	if (sandbox->start.speculates)
		return 0;
	for (size_t i = 0; i < COUNT(speculation); i++) {
		int state = prctl(PR_GET_SPECULATION_CTRL, speculation[i], 0, 0, 0);

		*index = (int)i;
		if (state < 0 || !(state & PR_SPEC_PRCTL) || state & PR_SPEC_FORCE_DISABLE)
			continue;
		if (prctl(PR_SET_SPECULATION_CTRL, speculation[i], PR_SPEC_FORCE_DISABLE, 0, 0))
			return errno;
	}
	return 0;
}

/* Documentation/userspace-api/landlock.rst; what these headers may be too old to name. */
#define READ_RIGHTS                                                                 \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FILE_RIGHTS                                                                 \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |            \
	 LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |             \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |               \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define DEVICE_RIGHTS                                                               \
	(LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
#define FS_REFER (1ULL << 13)     /* from ABI 2 */
#define FS_TRUNCATE (1ULL << 14)  /* from ABI 3 */
#define FS_IOCTL_DEV (1ULL << 15) /* from ABI 5 */
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0) /* from ABI 6 */
#define SCOPE_SIGNAL (1ULL << 1)               /* from ABI 6 */

struct ruleset {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

/* How much of struct ruleset a kernel of that ABI knows: a longer one is refused. */
static size_t ruleset_bytes(uint32_t abi)
{
	return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static int allow_beneath(int ruleset, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = rights,
		.parent_fd = open(path, O_PATH | O_CLOEXEC),
	};
	int error = 0;

	if (rule.parent_fd < 0)
		return errno;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		error = errno;
	close(rule.parent_fd);
	return error;
}

/* 0 where the kernel has no Landlock, or has it switched off. */
static uint32_t landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (uint32_t)abi;
}

int restrict_files(struct sandbox *sandbox, int *index)
{
	uint32_t abi = landlock_abi();
	uint64_t write = FILE_RIGHTS | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0);
	uint64_t device = abi >= 5 ? FS_IOCTL_DEV : 0;
	const struct ruleset attributes = {
		.handled_access_fs = READ_RIGHTS | write | DEVICE_RIGHTS | device,
		.scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0,
	};
	const struct {
		const char *path;
		uint64_t rights;
	} rules[] = {
		{ "/", READ_RIGHTS },
		{ "/box", READ_RIGHTS | write },
		{ "/tmp", READ_RIGHTS | write },
		{ "/dev/shm", READ_RIGHTS | write },
		{ "/dev", LANDLOCK_ACCESS_FS_WRITE_FILE | device | (abi >= 3 ? FS_TRUNCATE : 0) },
	};
	int ruleset, error = 0;

	(void)sandbox;
	/* The service refuses to start where there is none, unless its operator accepts it by name. */
	if (!abi)
		return 0;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, ruleset_bytes(abi), 0);
	if (ruleset < 0)
		return errno;
	for (size_t i = 0; !error && i < COUNT(rules); i++) {
		*index = (int)i + 1;
		error = allow_beneath(ruleset, rules[i].path, rules[i].rights);
	}
	if (!error && syscall(SYS_landlock_restrict_self, ruleset, 0))
		error = errno;
	close(ruleset);
	return error;
}

/* With a listener, which goes to init: what the filter hands over waits there for its answer. */
int load_filter(struct sandbox *sandbox, int *index)
{
	const struct sock_fprog program = {
		.len = (unsigned short)(sandbox->start.filter_bytes / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)sandbox->filter,
	};
	/* Not interrupted by signals once init has seen a call: or it would be counted twice. */
	const unsigned long flags = sandbox->start.listens ? SECCOMP_FILTER_FLAG_NEW_LISTENER |
		SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0;
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);

	if (listener < 0)
		return errno;
	*index = 1;
	/* Close-on-exec, as the kernel makes it. */
	return sandbox->start.listens ? message_send(sandbox->handover, "l", 1, &listener, 1) : 0;
}

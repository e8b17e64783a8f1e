/*
 * landlock.c - a job writes to its own files alone, whatever is mounted how (Documentation/userspace-api/landlock.rst).
 *
 * The rules are made before a job is known, since opening what they speak of takes the longest of it.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What these headers may be too old to name. */
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

static uint64_t write_rights(uint32_t abi)
{
	return FILE_RIGHTS | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0);
}

static int add_rules(int ruleset, uint32_t abi, int *index)
{
	const uint64_t device = abi >= 5 ? FS_IOCTL_DEV : 0, truncate = abi >= 3 ? FS_TRUNCATE : 0;
	const struct {
		const char *path;
		uint64_t rights;
	} rules[] = {
		{ "/", READ_RIGHTS },
		{ "/box", READ_RIGHTS | write_rights(abi) },
		{ "/tmp", READ_RIGHTS | write_rights(abi) },
		{ "/dev/shm", READ_RIGHTS | write_rights(abi) },
		{ "/dev", LANDLOCK_ACCESS_FS_WRITE_FILE | device | truncate },
	};
	int error = 0;

	for (size_t i = 0; !error && i < COUNT(rules); i++) {
		*index = (int)i + 1;
		error = allow_beneath(ruleset, rules[i].path, rules[i].rights);
	}
	return error;
}

int prepare_landlock(struct sandbox *sandbox, int *index)
{
	uint32_t abi = landlock_abi();
	const struct ruleset attributes = {
		.handled_access_fs = READ_RIGHTS | write_rights(abi) | DEVICE_RIGHTS |
				     (abi >= 5 ? FS_IOCTL_DEV : 0),
		.scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL : 0,
	};

	sandbox->ruleset = -1;
	/* The service refuses to start where there is none, unless its operator accepts it by name. */
	if (!abi)
		return 0;
	sandbox->ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, ruleset_bytes(abi), 0);
	return sandbox->ruleset < 0 ? errno : add_rules(sandbox->ruleset, abi, index);
}

/* What covers /box since then has to be spoken of, too: a rule about what is covered says nothing. */
int restrict_files(struct sandbox *sandbox, int *index)
{
	int error = 0;

	if (sandbox->ruleset < 0)
		return 0;
	if (sandbox->start.layers)
		error = allow_beneath(sandbox->ruleset, "/box", READ_RIGHTS | write_rights(landlock_abi()));
	*index = 1;
	if (!error && syscall(SYS_landlock_restrict_self, sandbox->ruleset, 0))
		error = errno;
	close(sandbox->ruleset);
	return error;
}

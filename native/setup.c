/*
 * setup.c - the inside of a sandbox, from clone3() to execve().
 *
 * Read this file first. The table below is the whole set-up, in order, and the order is the
 * security argument: each row says why it stands there.
 *
 * Who runs it. The supervisor, "root" of the outer user namespace only, clones a process into a new
 * user and a new pid namespace; the others, mount, network, ipc, uts, cgroup and (where the kernel has
 * it) time, follow once it is in its cgroup. That process is init, pid 1. It walks the first table and
 * forks pid 2, which will be the job: each then walks a table of its own. Both wait at the row "ready":
 * the sandbox is whole, every barrier that does not depend on a job is up, and nothing has run. When a
 * job comes, init does what needs root, gives that up and hands the rest to pid 2.
 *
 * Two ids are mapped to ids of the host that no other sandbox and no service has: INIT_ID for init and JOB_ID for
 * the job. FROZEN_ID, which no job ever runs as, is the same in all: it owns what one sandbox left for others. All
 * of init's authority is over its own user namespace.
 *
 * Init's descriptors: one socket to the supervisor, one to pid 2, the notices of deaths; while the job runs,
 * what the filter hands over (listener.c). Pid 2 has both sockets and the cgroup's CPU counters, all
 * close-on-exec. The job has 0, 1 and 2.
 */
#include "setup.h"

#include <unistd.h>

struct step {
	enum stage stage;
	step_function *run;
};

static const struct step sandbox_steps[] = {
	/* The supervisor's other sockets came along: held here they would hide its death from others. */
	{ STAGE_DESCRIPTORS, keep_own_descriptors },
	/* Before the ids change: the kernel lets the service's user move only a process of its own. */
	{ STAGE_CGROUP, join_cgroup },
	/*
	 * In our cgroup, which is then the root of what we see and pays for them. The supervisor, which has
	 * others to serve, clones only what cannot be entered otherwise.
	 */
	{ STAGE_NAMESPACES, enter_namespaces },
	/* Until the maps are written we are nobody here and own nothing. */
	{ STAGE_MAPS, become_root_of_sandbox },
	/* What a parent ignores or blocks stays so across execve(): the job starts with the defaults. */
	{ STAGE_SIGNALS, reset_signals },
	/* After the change of ids, which clears it; the socket shows a parent that died before. */
	{ STAGE_PARENT, die_with_parent },
	/* No terminal and no keys of the service's session. */
	{ STAGE_SESSION, start_session },
	/*
	 * Before the first mount: a device bound from a shared mount of the host would stay its slave, and what
	 * the host mounts there would come in.
	 */
	{ STAGE_PRIVATE, make_mounts_private },
	/* The image, by overlay: a file in two sandboxes is two inodes, and locks do not leak. */
	{ STAGE_ROOT, mount_root },
	/* The rest goes beneath the new root while the host's devices can still be seen. */
	{ STAGE_PROC, mount_proc },
	{ STAGE_DEV, mount_dev },
	{ STAGE_SCRATCH, mount_scratch },
	/* From here no path leads to the host. */
	{ STAGE_PIVOT, enter_root },
	/* Through our own /proc, so after the pivot, and while it can still be written. */
	{ STAGE_SYSCTLS, forbid_nesting },
	/* Nothing is left to write in /proc or /dev. */
	{ STAGE_READ_ONLY, make_read_only },
	{ STAGE_NETWORK, raise_loopback },
	{ STAGE_HOSTNAME, set_hostname },
	/* Before the fork: whoever comes after can only lose capabilities, and init needs a few until a job came. */
	{ STAGE_BOUNDING, bound_capabilities },
	/* For both as well. Landlock and seccomp ask for it from whoever has no capability. */
	{ STAGE_NO_NEW_PRIVS, set_no_new_privs },
	/* Ahead of time, like all above: a fork costs as much as half of what is left. */
	{ STAGE_FORK, fork_job },
};

static const struct step init_steps[] = {
	/* Once pid 2 is ready too. Everything above happens before a job is known: no job waits for it. */
	{ STAGE_READY, receive_job },
	/* While nothing of the job runs and root still owns the mounts. */
	{ STAGE_SIZES, size_scratch },
	/* Inside the cgroup, so that the job pays for its input, and before the job can plant a link. */
	{ STAGE_FILES, write_files },
	/* Before what another sandbox left comes to lie beside them, with whatever links are in it. */
	{ STAGE_LENT, show_lent },
	/* Last of what comes into /box: what has a name there by then stays. */
	{ STAGE_BOX, copy_box },
	/* Neither in what the job may write nor out of what that may take, but in its cgroup. */
	{ STAGE_HOSTS, mount_hosts },
	/* Where the job will run, so that init disturbs no other job. */
	{ STAGE_PROCESSORS, pin },
	/* Nothing below needs authority, and the job's program has not begun. */
	{ STAGE_CAPABILITIES, drop_capabilities },
	/* Last: from here on it is pid 2 that goes on. */
	{ STAGE_HANDOVER, hand_over },
	{ STAGE_ATTEND, attend },
};

static const struct step job_steps[] = {
	/* The last step that needs privilege over the namespace, except for giving it up. */
	{ STAGE_IDS, change_ids },
	/* The change of ids leaves the inheritable set as it was, and by our securebits the others too. */
	{ STAGE_CAPABILITIES, drop_capabilities },
	/* Opens the directories it speaks of, so before the filter. */
	{ STAGE_LANDLOCK, restrict_files },
	/* Where pid 2 waits. What follows is the job's own choice, or needs to know it. */
	{ STAGE_READY, receive_start },
	/* Before the job's own time is counted from; the filter of a pinned job then refuses to change it. */
	{ STAGE_PROCESSORS, pin },
	{ STAGE_STDIO, put_stdio },
	/* After stdio, whose originals go with the rest. What stays until execve() is close-on-exec. */
	{ STAGE_CLOSE, close_descriptors },
	/* Lowering needs no privilege; after what opens files, which must not be caught by a limit. */
	{ STAGE_RLIMITS, set_rlimits },
	/* For good, and for all that it will fork and execute; the filter then refuses to ask otherwise. */
	{ STAGE_SPECULATION, restrict_speculation },
	/* With the job's ids and under Landlock: it finds what execve() will be allowed to run. */
	{ STAGE_PROGRAM, find_program },
	/* As late as can be: what came before is not charged to the job. */
	{ STAGE_BASELINE, report_baseline },
	/* Last, so that the filter need not allow anything done above. */
	{ STAGE_SECCOMP, load_filter },
	{ STAGE_EXEC, execute },
};

/* Does not come back from a step that failed: the supervisor is told which it was. */
static void walk(const struct step *steps, size_t count, struct sandbox *sandbox)
{
	struct news news = { .header.type = TYPE_FAILED };

	for (size_t i = 0; i < count; i++) {
		int index = 0, error = steps[i].run(sandbox, &index);

		if (!error)
			continue;
		news.failure = (struct failure){ steps[i].stage, error, index, 0 };
		tell(sandbox, &news, NULL, 0);
		_exit(1);
	}
}

_Noreturn void setup_run(struct sandbox *sandbox)
{
	walk(sandbox_steps, COUNT(sandbox_steps), sandbox);
	if (sandbox->job)
		walk(init_steps, COUNT(init_steps), sandbox);
	else
		walk(job_steps, COUNT(job_steps), sandbox);
	_exit(1);
}

/*
 * setup.c - the inside of a sandbox, from clone3() to execve().
 *
 * Read this file first. The table below is the whole set-up, in order, and the order is the
 * security argument: each row says why it stands there.
 *
 * Who runs it. The supervisor, "root" of the outer user namespace only, clones a process into new
 * user, pid, mount, network, ipc, uts and (where the kernel has it) time namespaces; its cgroup
 * namespace follows once it is in its cgroup. That process is init, pid 1. It runs the first part
 * of the table, up to `receive_job`, and is then a ready sandbox: everything is in place, nothing
 * has run. When a job comes, it goes on, forks, and stays behind in init.c to reap; pid 2 walks the
 * rest of the table and becomes the job.
 *
 * Two ids are mapped: INIT_ID for init and JOB_ID for the job, each to an id of the host that no
 * other sandbox and no service has. All of init's authority is over its own user namespace.
 *
 * Init's descriptors: one socket to the supervisor, the cgroup's CPU counters and, on cgroup
 * v1, the files through which it joins. While the job runs: the socket, the notices of deaths and what
 * the filter hands over (listener.c). The job has 0, 1 and 2.
 */
#include "setup.h"

#include <unistd.h>

struct step {
	enum stage stage;
	step_function *run;
};

static const struct step steps[] = {
	/* The supervisor's other sockets came along: held here they would hide its death from others. */
	{ STAGE_DESCRIPTORS, keep_own_descriptors },
	/*
	 * Before the ids change: the kernel lets the service's user move only a process of its own. The
	 * cgroup namespace is made right after, so that this cgroup is its root.
	 */
	{ STAGE_CGROUP, join_cgroup },
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
	/* Ready. Everything above happens before a job is known, so that a job does not wait for it. */
	{ STAGE_READY, receive_job },
	/* While nothing of the job runs and root still owns the mounts. */
	{ STAGE_SIZES, size_scratch },
	/* Inside the cgroup, so that the job pays for its input, and before the job can plant a link. */
	{ STAGE_FILES, write_files },
	/* Init goes no further than this row: what follows is the job's own process. */
	{ STAGE_FORK, fork_job },
	{ STAGE_STDIO, put_stdio },
	/* After stdio, whose originals go with the rest. What stays until execve() is close-on-exec. */
	{ STAGE_CLOSE, close_descriptors },
	/* Before the ids: lowering needs no privilege, but no later step may be caught by a limit unseen. */
	{ STAGE_RLIMITS, set_rlimits },
	/* The last step that needs privilege over the namespace, except for giving it up. */
	{ STAGE_IDS, change_ids },
	/* The change of ids leaves the bounding and inheritable sets as they were. */
	{ STAGE_CAPABILITIES, drop_capabilities },
	/* Landlock and seccomp ask for it from whoever has no capability. */
	{ STAGE_NO_NEW_PRIVS, set_no_new_privs },
	/* For good, and for all that it will fork and execute; the filter then refuses to ask otherwise. */
	{ STAGE_SPECULATION, restrict_speculation },
	/* Opens the directories it speaks of, so before the filter. */
	{ STAGE_LANDLOCK, restrict_files },
	/* With the job's ids and under Landlock: it finds what execve() will be allowed to run. */
	{ STAGE_PROGRAM, find_program },
	/* As late as can be: what came before is not charged to the job. */
	{ STAGE_BASELINE, report_baseline },
	/* Last, so that the filter need not allow anything done above. */
	{ STAGE_SECCOMP, load_filter },
	{ STAGE_EXEC, execute },
};

_Noreturn void setup_run(struct sandbox *sandbox)
{
	struct news news = { .header.type = TYPE_FAILED };
	int index = 0, error = 0;

	for (size_t i = 0; i < COUNT(steps); i++) {
		index = 0;
		error = steps[i].run(sandbox, &index);
		if (!error)
			continue;
		news.failure = (struct failure){ steps[i].stage, error, index, 0 };
		break;
	}
	tell(sandbox, &news, -1);
	_exit(1);
}

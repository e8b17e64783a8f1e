/* setup.h - the inside of a sandbox while it is being set up. */
#ifndef JAIL_SETUP_H
#define JAIL_SETUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "cpu.h"
#include "protocol.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The empty file in /dev over which a file is bound that a job is lent to read as stdin. */
#define LENT_STDIN "lent-stdin"

/* Where a job's descriptors stand among those that come with it: struct start in message.h. */
enum { STDIO = 3, JOB_FILTER = STDIO, JOB_PLAN, JOB_DESCRIPTORS, EXPLAINING_DESCRIPTORS = 2 };

/*
 * What init has in hand. It is filled before the clone; `start` and its descriptors
 * arrive when the job does.
 */
struct sandbox {
	int control;                        /* socket to the supervisor */
	const struct make *make;
	int joins[DESCRIPTORS_MAX];         /* tasks files of v1 */
	int counters[CPU_COUNTERS_MAX];
	int box;                            /* its tmpfs, where outputs will be read */
	pid_t job;                          /* 0 in itself */
	int job_pidfd;                      /* in init, until it has told of it */
	int handover;                       /* between init and job */
	int deaths;                         /* of init's children */
	uint64_t taken_ns;                  /* when this process had the job */
	struct start start;
	int received[DESCRIPTORS_MAX];      /* the descriptors that came with it */
	int answers;                        /* how denied calls are answered, when they are explained; or -1 */
	struct denials *denials;            /* where they are told of, or NULL */
	const char *filter;                 /* mapped, start.filter_bytes long */
	char **arguments;                   /* ended by NULL */
	char **variables;                   /* ended by NULL */
	const char *search;
	const char *directory;
	char program[PATH_BYTES_MAX];       /* what execve() is given */
};

/*
 * Set up the sandbox from inside and become its init, with the job's process ahead of its job. Called in
 * the new process right after clone3(). Only system calls from here on: no malloc, no stdio.
 */
_Noreturn void setup_run(struct sandbox *sandbox);

/*
 * Every step returns 0 or an errno value, and sets `index` where it does several things of one
 * kind. The steps stand in the tables of setup.c, in order, with their reasons.
 */
typedef int step_function(struct sandbox *sandbox, int *index);

/* root.c */
step_function make_mounts_private, mount_root, mount_proc, mount_dev, mount_scratch, enter_root;
step_function make_read_only, size_scratch, mount_hosts;

/* barriers.c */
step_function keep_own_descriptors, join_cgroup, enter_namespaces, become_root_of_sandbox, reset_signals;
step_function die_with_parent, start_session, forbid_nesting, set_hostname, raise_loopback;
step_function pin, set_rlimits, change_ids, drop_capabilities, set_no_new_privs;
step_function bound_capabilities, restrict_speculation, restrict_files, load_filter;

/* init.c */
step_function fork_job, attend;

/* handover.c */
step_function receive_job, hand_over, receive_start;

/* box.c */
step_function copy_box;

/* lent.c */
step_function show_lent;

/* files.c */
step_function write_files;

/* job.c */
step_function put_stdio, close_descriptors, find_program, report_baseline, execute;

/*
 * Take in what the filter hands over, at `fd`: first `handover`, by which its listener comes, then that
 * listener, or -1 when there is nobody left under it. Returns 0 or an errno value. In listener.c.
 */
int hear_calls(struct sandbox *sandbox, int *fd);

/* Map a descriptor's bytes, at `place`, to be read. Returns 0 or an errno value. */
int map_bytes(int fd, uint64_t bytes, const char **place);

/* Tell the supervisor `news`, with `count` descriptors. Returns 0 or an errno value. */
int tell(const struct sandbox *sandbox, struct news *news, const int *fds, size_t count);

bool is_open(int fd);

/*
 * In files.c. What leads to `path` beneath the directory `box`, made for the job; an entry of a directory given to it;
 * each 0 or an errno value. And a path beneath a directory, opened without a link on the way: a descriptor, or -1.
 */
int make_parents(int box, const char *path);
int give_to_job(int directory, const char *path);
int open_beneath(int directory, const char *path, uint64_t flags, uint64_t mode);

/* The path through which an open descriptor is named to mount(2). In root.c. */
const char *descriptor_path(int fd, char path[32]);

/* Where the descriptors of `places` stand among those that came with a job. */
const int *places_of(const struct sandbox *sandbox);

/* Close everything but `keep`, `count` descriptors in any order, which is sorted in place. */
int close_all_but(int *keep, size_t count);

#endif

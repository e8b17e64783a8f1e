/* slot.h - one place for a sandbox, as the supervisor sees it. */
#ifndef JAIL_SLOT_H
#define JAIL_SLOT_H

#include <stdbool.h>

#include "cpu.h"
#include "protocol.h"

enum state {
	STATE_FREE,
	STATE_MAKING,   /* init sets up the sandbox */
	STATE_READY,    /* it waits for a job */
	STATE_STARTING, /* it got one and sets that up */
	STATE_RUNNING,  /* the program was about to be executed: its clocks run */
	STATE_ENDED,    /* nothing of the job lives; /box can still be read */
	STATE_RELEASED, /* nobody needs it any more; init may still be dying */
};

/* Descriptors are -1 when there is none. */
struct slot {
	enum state state;
	int epoll;   /* the supervisor's; it watches the next four */
	int control; /* socket to init */
	int init;    /* pidfd */
	int job;     /* pidfd of pid 2 */
	int timer;
	int oom;     /* eventfd: OOM notices of cgroup v1 */
	int kill;    /* cgroup.kill of cgroup v2 */
	int box;     /* its tmpfs, as a detached mount */
	int freezer; /* pidfd of who gives what is in it to another owner */
	int opened;  /* goes out with the next report */
	int counters[CPU_COUNTERS_MAX];
	uint32_t counter_count;
	uint64_t cpu_limit_ns, wall_limit_ns, parallelism;
	uint64_t started_ns, ended_ns;
	uint64_t used_ns, moved_ns; /* CPU time at the last look, and when it was last seen to change */
	struct cpu_time baseline;
	struct report report;
	bool alone;   /* on one processor, where no other job is */
	bool booking; /* its CPU time is about to be booked */
	bool unsent; /* the report waits for room in the service's socket */
	char place[PLACE_BYTES_MAX]; /* where it is mounted once that is done */
};

/* Give every descriptor a value that means "none". */
void slot_clear(struct slot *slot);

/*
 * Make a sandbox with the received descriptors, which are the slot's from here on, whatever
 * happens. Returns 0 or an errno value; then report.failure says where, and nothing lives.
 */
int slot_make(struct slot *slot, const struct make *make, const int *fds);

/* Hand the job to init, with its places. Returns 0 or an errno value; then report.failure says where. */
int slot_start(struct slot *slot, const struct start *start, const int *fds, size_t count);

/* Kill everything in the sandbox; the first cause stays. */
void slot_kill(struct slot *slot, enum cause cause);

/* What a timer that fired means: a limit reached, or the next moment to look. Returns 0 or an errno value. */
int slot_check_limits(struct slot *slot);

/* Take in one message of init or pid 2. Returns 0, EAGAIN when there is none, or another errno value. */
int slot_hear(struct slot *slot);

/* Once init is dead: reap it, and end what had not ended. EAGAIN when it is not dead. */
int slot_bury(struct slot *slot);

/* Open a regular file beneath /box for reading, as `opened`, with the outcome in the report. */
void slot_open(struct slot *slot, const char *path);

/* Begin to keep /box at `place` for `owner`: by a freezer, to be watched. Without one the report says why. */
void slot_freeze(struct slot *slot, uint32_t owner, const char *place);

/* Once the freezer is dead: keep /box, with the outcome in the report. EAGAIN when it is not dead. */
int slot_end_freeze(struct slot *slot);

/* End init if it lives, and close what is left. The slot is free again once init is buried. */
void slot_release(struct slot *slot);

/* Whether something of the job, or of a sandbox that waits for one, may live. */
bool slot_lives(const struct slot *slot);

/* Whether a slot was released and its init buried. */
bool slot_is_gone(const struct slot *slot);

#endif

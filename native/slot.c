/*
 * slot.c - the life of one sandbox, seen from the supervisor.
 *
 *   FREE -> MAKING -> READY -> STARTING -> RUNNING -> ENDED -> RELEASED -> FREE
 *
 * From every state between FREE and ENDED the next may be ENDED: init can fail or be killed
 * anywhere. A job that ends by itself leaves init behind, alone, until the slot is released: what its end
 * costs, nobody waits for. Processes are named by pidfds; init's pid is used once, to write its id maps
 * while it is our unwaited-for child and cannot be anyone else's.
 */
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "freeze.h"
#include "setup.h"

#define CLOSEST_LOOK_NS 500000u
/* How long init takes to run where its job is busy. */
#define BOOKING_NS 100000u
/*
 * Near its limit a job that does nothing is looked at less often. The kernel books CPU time at
 * ticks, at most 10 ms apart: only a counter that stands still for longer tells of such a job.
 */
#define IDLE_AFTER_NS 10000000u
#define IDLE_LOOK_NS 4000000u

bool slot_lives(const struct slot *slot)
{
	return slot->state != STATE_FREE && slot->state < STATE_ENDED;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/*
 * Until it has let go of it, an init that is being made holds a copy of whatever we have open: what has only
 * been closed would go on to be heard from.
 */
static void close_watched(const struct slot *slot, int *fd)
{
	if (*fd >= 0)
		epoll_ctl(slot->epoll, EPOLL_CTL_DEL, *fd, NULL);
	close_one(fd);
}

void slot_clear(struct slot *slot)
{
	memset(slot, 0, sizeof *slot);
	slot->epoll = slot->control = slot->init = slot->timer = slot->oom = slot->kill = slot->job = -1;
	slot->box = slot->freezer = slot->opened = -1;
	for (size_t i = 0; i < CPU_COUNTERS_MAX; i++)
		slot->counters[i] = -1;
}

static int set_timer(const struct slot *slot, uint64_t when_ns)
{
	const struct itimerspec at = {
		.it_value = { (time_t)(when_ns / SECOND_NS), (long)(when_ns % SECOND_NS) },
	};

	return timerfd_settime(slot->timer, TFD_TIMER_ABSTIME, &at, NULL) ? errno : 0;
}

/* A moment after `now` that cannot overflow. */
static uint64_t later(uint64_t now, uint64_t wait_ns)
{
	return wait_ns > INT64_MAX - now ? INT64_MAX : now + wait_ns;
}

static int write_file_of(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd, error = 0;

	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		error = errno;
	close(fd);
	return error;
}

/* user_namespaces(7): setgroups(2) is refused inside for good, which must be said before the gid map. */
static int write_id_maps(pid_t pid, const char *map)
{
	int error = write_file_of(pid, "uid_map", map);

	if (!error)
		error = write_file_of(pid, "setgroups", "deny");
	return error ? error : write_file_of(pid, "gid_map", map);
}

/* Returns the pid in the parent, 0 in init, or -1 with errno. */
static pid_t clone_init(struct slot *slot, const struct make *make, int cgroup)
{
	struct clone_args args = {
		/* The other namespaces take longer than all the rest here, and can be made by init itself. */
		.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_PIDFD | (make->born ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)&slot->init,
		.exit_signal = SIGCHLD,
		.cgroup = make->born ? (uint64_t)cgroup : 0,
	};

	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static _Noreturn void become_init(const struct slot *slot, const struct make *make,
				  const int *joins, int control)
{
	struct sandbox sandbox = { .control = control, .make = make };

	memcpy(sandbox.joins, joins, make->joins * sizeof *joins);
	memcpy(sandbox.counters, slot->counters, sizeof sandbox.counters);
	setup_run(&sandbox);
}

static int fail(struct slot *slot, enum stage stage, int error)
{
	slot->report.failure = (struct failure){ stage, error, 0, 0 };
	return error;
}

static void keep_descriptors(struct slot *slot, const struct make *make, const int *fds)
{
	const int *next = fds + make->joins + make->born;

	slot->kill = make->born ? *next++ : -1;
	slot->counter_count = make->cpu_counters;
	for (uint32_t i = 0; i < make->cpu_counters; i++)
		slot->counters[i] = *next++;
	slot->oom = make->oom_event ? *next : -1;
}

static int clone_sandbox(struct slot *slot, const struct make *make, const int *fds, int init_end)
{
	pid_t pid = clone_init(slot, make, fds[0]);
	int error;

	if (pid < 0) {
		error = errno;
		/* The kernel may have left a number there before it failed: it is nobody's, soon someone else's. */
		slot->init = -1;
		return fail(slot, STAGE_CLONE, error);
	}
	if (!pid)
		become_init(slot, make, fds, init_end);
	error = write_id_maps(pid, make->id_map);
	if (!error && send(slot->control, "m", 1, MSG_NOSIGNAL) != 1)
		error = errno;
	if (!error)
		return 0;
	/* First, since it takes in what init has said: it may have ended before us, and said why. */
	slot_kill(slot, CAUSE_NONE);
	if (slot->report.failure.stage == STAGE_NONE)
		fail(slot, STAGE_ID_MAPS, error);
	/* Init is there and will be buried like any other. */
	return 0;
}

/* The first failure stays: it is the one that the others follow from. */
static void count_up(struct slot *slot)
{
	struct cpu_time cpu;
	int error = cpu_read(slot->counters, slot->counter_count, &cpu);

	if (error && slot->report.failure.stage == STAGE_NONE)
		fail(slot, STAGE_BASELINE, error);
	if (error || !slot->report.started)
		return;
	slot->report.cpu = cpu_since(slot->baseline, cpu);
	if (!slot->ended_ns)
		slot->ended_ns = clock_now();
	if (slot->ended_ns > slot->started_ns)
		slot->report.wall_ns = slot->ended_ns - slot->started_ns;
}

static void close_watches(struct slot *slot)
{
	close_watched(slot, &slot->timer);
	close_watched(slot, &slot->oom);
	close_one(&slot->kill);
	close_one(&slot->job);
	for (size_t i = 0; i < CPU_COUNTERS_MAX; i++)
		close_one(&slot->counters[i]);
}

/* Nothing of the job lives. Nothing is closed yet: closing takes longer than telling. */
static void end(struct slot *slot)
{
	count_up(slot);
	slot->state = STATE_ENDED;
	slot->report.header.type = TYPE_ENDED;
	slot->unsent = true;
}

int slot_make(struct slot *slot, const struct make *make, const int *fds)
{
	int pair[2], error;

	slot->state = STATE_MAKING;
	keep_descriptors(slot, make, fds);
	slot->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (slot->timer < 0)
		error = fail(slot, STAGE_CLONE, errno);
	else if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		error = fail(slot, STAGE_CLONE, errno);
	else {
		slot->control = pair[0];
		error = fcntl(pair[0], F_SETFL, O_NONBLOCK) ? fail(slot, STAGE_CLONE, errno) :
			set_timer(slot, later(clock_now(), make->setup_ns));
		if (!error)
			error = clone_sandbox(slot, make, fds, pair[1]);
		close(pair[1]);
	}
	for (uint32_t i = 0; i < make->joins + make->born; i++)
		close(fds[i]);
	if (error)
		end(slot);
	return error;
}

static bool on_one_processor(const struct start *start)
{
	int processors = 0;

	for (size_t i = 0; i < PROCESSORS_MAX / 64; i++)
		processors += __builtin_popcountll(start->processors[i]);
	return processors == 1;
}

static int send_start(struct slot *slot, const struct start *start, const int *fds, size_t count)
{
	int all[DESCRIPTORS_MAX], error;
	uint32_t places = start->keeps + start->lends;

	memcpy(all, fds, count * sizeof *fds);
	error = open_places((const char *)(start + 1), places, all + count);
	if (error)
		return fail(slot, STAGE_BOX, error);
	error = message_send(slot->control, start, sizeof *start, all, count + places);
	for (uint32_t i = 0; i < places; i++)
		close(all[count + i]);
	return error ? fail(slot, STAGE_READY, error) : 0;
}

int slot_start(struct slot *slot, const struct start *start, const int *fds, size_t count)
{
	int error;

	slot->state = STATE_STARTING;
	slot->report.moments.received_ns = clock_now();
	slot->cpu_limit_ns = start->cpu_ns;
	slot->wall_limit_ns = start->wall_ns;
	slot->parallelism = start->parallelism ? start->parallelism : 1;
	slot->alone = on_one_processor(start);
	error = send_start(slot, start, fds, count);
	return error ? error : set_timer(slot, later(clock_now(), start->setup_ns));
}

static void kill_process(int pidfd)
{
	if (pidfd >= 0)
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

void slot_kill(struct slot *slot, enum cause cause)
{
	/* It is in no sandbox. There is one only when nothing else of the slot lives. */
	kill_process(slot->freezer);
	/* A main process that has exited was not ended by us, however long the rest takes to die. */
	while (slot->control >= 0 && slot_hear(slot) == 0)
		;
	if (slot->report.cause == CAUSE_NONE && !slot->report.exited)
		slot->report.cause = cause;
	/*
	 * cgroup v2 has a call for it. Else init, pid 1 of the sandbox: with it the kernel kills all others, once it
	 * runs, for which the job may leave it no processor. First init, which would tell of the job's death.
	 */
	if (slot->kill >= 0 && write(slot->kill, "1", 1) == 1)
		return;
	kill_process(slot->init);
	kill_process(slot->job);
}

static uint64_t wall_end(const struct slot *slot)
{
	return later(slot->started_ns, slot->wall_limit_ns);
}

/* No sooner than when every processor that the job can use has been busy from now on. */
static int set_next_look(const struct slot *slot, uint64_t now)
{
	uint64_t closest = now - slot->moved_ns > IDLE_AFTER_NS ? IDLE_LOOK_NS : CLOSEST_LOOK_NS;
	uint64_t look = (slot->cpu_limit_ns - slot->used_ns) / slot->parallelism;

	look = later(now, look > closest ? look : closest);
	return set_timer(slot, look < wall_end(slot) ? look : wall_end(slot));
}

/*
 * The kernel books CPU time at a tick, or when a process is switched out: waking init, which does nothing,
 * has it book that of a job with which it shares one processor.
 */
static void have_booked(const struct slot *slot)
{
	syscall(SYS_pidfd_send_signal, slot->init, SIGCHLD, NULL, 0);
}

static int check_running(struct slot *slot, uint64_t now)
{
	uint64_t total, used;
	int error;

	if (now >= wall_end(slot)) {
		slot_kill(slot, CAUSE_WALL);
		return 0;
	}
	if (slot->alone && !slot->booking) {
		slot->booking = true;
		have_booked(slot);
		return set_timer(slot, later(now, BOOKING_NS));
	}
	slot->booking = false;
	error = cpu_read_total(slot->counters, slot->counter_count, &total);
	if (error)
		return error;
	used = total > slot->baseline.total_ns ? total - slot->baseline.total_ns : 0;
	if (used >= slot->cpu_limit_ns) {
		slot_kill(slot, CAUSE_CPU);
		return 0;
	}
	if (used != slot->used_ns)
		slot->moved_ns = now;
	slot->used_ns = used;
	return set_next_look(slot, now);
}

int slot_check_limits(struct slot *slot)
{
	uint64_t fired;

	if (read(slot->timer, &fired, sizeof fired) < 0)
		return errno == EAGAIN ? 0 : errno;
	if (slot->state == STATE_RUNNING)
		return check_running(slot, clock_now());
	if (slot->state != STATE_MAKING && slot->state != STATE_STARTING)
		return 0;
	/* First, since it takes in what init has said: a failure told there is the true one. */
	slot_kill(slot, CAUSE_NONE);
	if (slot->report.failure.stage == STAGE_NONE)
		fail(slot, STAGE_TIME, ETIMEDOUT);
	return 0;
}

/* Returns how many of the descriptors are the slot's from here on. */
static size_t hear_built(struct slot *slot, const int *fds)
{
	slot->box = fds[0];
	slot->job = fds[1];
	slot->opened = fds[2];
	slot->state = STATE_READY;
	slot->report.header.type = TYPE_READY;
	slot->unsent = true;
	set_timer(slot, 0);
	return BUILT_DESCRIPTORS;
}

static int hear_started(struct slot *slot, const struct news *news)
{
	slot->state = STATE_RUNNING;
	slot->report.started = 1;
	slot->report.moments.given_ns = news->since_ns;
	slot->report.moments.started_ns = news->clock_ns;
	slot->baseline = news->cpu;
	slot->started_ns = slot->moved_ns = news->clock_ns;
	return set_next_look(slot, slot->started_ns);
}

static bool has_job(const struct slot *slot)
{
	return slot->state == STATE_STARTING || slot->state == STATE_RUNNING;
}

static void hear_exited(struct slot *slot, const struct news *news)
{
	slot->report.exited = 1;
	slot->report.exit_code = news->exit_code;
	slot->report.signal = news->signal;
	slot->report.max_rss_bytes = news->max_rss_bytes;
	slot->report.moments.taken_ns = news->since_ns;
	slot->report.moments.exited_ns = news->clock_ns;
	slot->ended_ns = news->clock_ns;
}

static void hear_empty(struct slot *slot, const struct news *news)
{
	slot->report.moments.empty_ns = news->clock_ns;
	end(slot);
}

int slot_hear(struct slot *slot)
{
	int fds[DESCRIPTORS_MAX], error;
	size_t length, count, taken = 0;
	struct news news;

	error = message_receive(slot->control, &news, sizeof news, &length, fds, &count);
	if (error)
		return error;
	if (length != sizeof news)
		error = EBADMSG;
	else if (news.header.type == TYPE_BUILT && slot->state == STATE_MAKING &&
		 count == BUILT_DESCRIPTORS)
		taken = hear_built(slot, fds);
	else if (news.header.type == TYPE_STARTED && slot->state == STATE_STARTING)
		error = hear_started(slot, &news);
	else if (news.header.type == TYPE_EXITED && has_job(slot))
		hear_exited(slot, &news);
	else if (news.header.type == TYPE_EMPTY && has_job(slot) && slot->report.exited)
		hear_empty(slot, &news);
	else if (news.header.type == TYPE_FAILED && slot_lives(slot) && slot->report.failure.stage == STAGE_NONE)
		slot->report.failure = news.failure;
	while (taken < count)
		close(fds[taken++]);
	return error;
}

int slot_bury(struct slot *slot)
{
	siginfo_t death = { 0 };

	if (waitid(P_PIDFD, (id_t)slot->init, &death, WEXITED | WNOHANG | __WALL))
		return errno;
	if (!death.si_pid)
		return EAGAIN;
	/* What init said last may not have been read yet. */
	while (slot->control >= 0 && slot_hear(slot) == 0)
		;
	close_watched(slot, &slot->control);
	close_watched(slot, &slot->init);
	if (slot_lives(slot))
		end(slot);
	slot->unsent = slot->unsent || slot_is_gone(slot);
	return 0;
}

static int open_output(int box, const char *path)
{
	struct open_how how = {
		/* O_NONBLOCK: a FIFO must not hold us. */
		.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};
	struct stat about;
	int fd = (int)syscall(SYS_openat2, box, path, &how, sizeof how);

	if (fd < 0 || (fstat(fd, &about) == 0 && S_ISREG(about.st_mode)))
		return fd;
	close(fd);
	errno = S_ISDIR(about.st_mode) ? EISDIR : EINVAL;
	return -1;
}

void slot_open(struct slot *slot, const char *path)
{
	/* Nothing was built, so nothing was written either; or it was kept. */
	int fd = slot->box < 0 ? (errno = ENOENT, -1) : open_output(slot->box, path);

	slot->report.header.type = TYPE_OPENED;
	slot->report.failure = (struct failure){ .error = fd < 0 ? errno : 0 };
	slot->opened = fd;
	slot->unsent = true;
}

static void report_frozen(struct slot *slot, int error)
{
	slot->report.header.type = TYPE_FROZEN;
	slot->report.failure = (struct failure){ .stage = error ? STAGE_FREEZE : STAGE_NONE, .error = error };
	slot->unsent = true;
}

void slot_freeze(struct slot *slot, uint32_t owner, const char *place)
{
	int error = slot->box < 0 ? ENOENT : begin_freeze(slot->box, owner, &slot->freezer);

	strcpy(slot->place, place);
	if (error)
		report_frozen(slot, error);
}

int slot_end_freeze(struct slot *slot)
{
	siginfo_t death = { 0 };
	int error;

	if (waitid(P_PIDFD, (id_t)slot->freezer, &death, WEXITED | WNOHANG))
		return errno;
	if (!death.si_pid)
		return EAGAIN;
	close_watched(slot, &slot->freezer);
	if (death.si_code != CLD_EXITED)
		error = ECHILD;
	else
		error = death.si_status ? death.si_status : end_freeze(slot->box, slot->place);
	close_one(&slot->box);
	report_frozen(slot, error);
	return 0;
}

void slot_release(struct slot *slot)
{
	kill_process(slot->init);
	close_watches(slot);
	close_watched(slot, &slot->control);
	close_one(&slot->box);
	close_one(&slot->opened);
	slot->state = STATE_RELEASED;
	slot->report.header.type = TYPE_GONE;
	slot->unsent = slot_is_gone(slot);
}

bool slot_is_gone(const struct slot *slot)
{
	return slot->state == STATE_RELEASED && slot->init < 0;
}

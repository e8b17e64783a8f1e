/*
 * supervisor.c - makes sandboxes, watches them, ends them.
 *
 * One thread, one epoll set, no allocation. It is root of the outer user namespace and nothing
 * anywhere else; it reads no configuration and chooses no path: what to make arrives finished
 * from the service. The keeper forks it with its socket to the service as stdin and the outer user
 * namespace as stdout, in the service's private directory: paths of images are relative to it.
 *
 * Its end is the end of every sandbox. It ends when the service does, which it learns twice over:
 * by PDEATHSIG, from the keeper, which dies with the service, and by the end of file on the socket.
 *
 * A request that does not fit the protocol or the state of its slot is a defect of the service.
 * It ends the supervisor at once, rather than letting it guess.
 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "outer.h"
#include "request.h"
#include "slot.h"
#include "view.h"

enum { EVENTS = 64 };

/* What an event is about; the slot's number stands beside it. */
enum about { ABOUT_SERVICE, ABOUT_CONTROL, ABOUT_INIT, ABOUT_TIMER, ABOUT_OOM, ABOUT_FREEZER };

struct supervisor {
	int epoll;
	bool waiting; /* for room in the service's socket */
	struct slot slots[SLOTS_MAX];
};

static int watch(const struct supervisor *supervisor, int fd, enum about about, uint32_t slot)
{
	struct epoll_event event = {
		/* The service has the eventfd open as well, so closing ours would not silence it. */
		.events = EPOLLIN | (about == ABOUT_OOM ? EPOLLONESHOT : 0),
		.data.u64 = (uint64_t)about << 32 | slot,
	};

	if (fd < 0)
		return 0;
	return epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, fd, &event) ? errno : 0;
}

static int await_room(struct supervisor *supervisor, bool waiting)
{
	struct epoll_event event = { .events = EPOLLIN | (waiting ? EPOLLOUT : 0) };

	if (supervisor->waiting == waiting)
		return 0;
	supervisor->waiting = waiting;
	return epoll_ctl(supervisor->epoll, EPOLL_CTL_MOD, SERVICE, &event) ? errno : 0;
}

/* A slot has one report at a time: the newest says all there is to know. */
static int send_report(struct supervisor *supervisor, struct slot *slot)
{
	int error;

	if (!slot->unsent)
		return 0;
	error = message_send(SERVICE, &slot->report, sizeof slot->report, &slot->opened,
			     slot->opened >= 0);
	/* ETOOMANYREFS: the service has yet to receive descriptors that were sent before. */
	if (error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS)
		return await_room(supervisor, true);
	if (error)
		return error;
	slot->unsent = false;
	if (slot->opened >= 0)
		close(slot->opened);
	slot->opened = -1;
	if (slot_is_gone(slot))
		slot_clear(slot);
	return 0;
}

static int send_waiting_reports(struct supervisor *supervisor)
{
	int error = await_room(supervisor, false);

	for (uint32_t i = 0; !error && i < SLOTS_MAX && !supervisor->waiting; i++)
		error = send_report(supervisor, &supervisor->slots[i]);
	return error;
}

static int on_make(struct supervisor *supervisor, struct slot *slot, const struct make *make,
		   const int *fds)
{
	uint32_t number = make->header.slot;
	int error;

	slot_clear(slot);
	slot->epoll = supervisor->epoll;
	slot->report.header = make->header;
	if (slot_make(slot, make, fds))
		return send_report(supervisor, slot);
	error = watch(supervisor, slot->control, ABOUT_CONTROL, number);
	if (!error)
		error = watch(supervisor, slot->init, ABOUT_INIT, number);
	if (!error)
		error = watch(supervisor, slot->timer, ABOUT_TIMER, number);
	return error ? error : watch(supervisor, slot->oom, ABOUT_OOM, number);
}

/* A ready sandbox can die before its job reaches it: then its end is on the way to the service. */
static int on_start(struct slot *slot, const struct start *start, const int *fds, size_t count)
{
	if (slot->state != STATE_READY && slot->state != STATE_ENDED)
		return EPROTO;
	if (!stdio_fits(fds))
		return EPROTO;
	if (slot->state == STATE_READY && slot_start(slot, start, fds, count))
		slot_kill(slot, CAUSE_NONE);
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	return 0;
}

static int on_freeze(struct supervisor *supervisor, struct slot *slot, const struct ask *ask)
{
	slot_freeze(slot, ask->owner, (const char *)(ask + 1));
	if (slot->freezer >= 0)
		return watch(supervisor, slot->freezer, ABOUT_FREEZER, ask->header.slot);
	return send_report(supervisor, slot);
}

static int on_ask(struct supervisor *supervisor, struct slot *slot, const struct ask *ask)
{
	bool ended = slot->state == STATE_ENDED && slot->freezer < 0;

	if (slot->state == STATE_RELEASED)
		return EPROTO;
	switch (ask->header.type) {
	case TYPE_KILL:
		if (slot->state != STATE_ENDED)
			slot_kill(slot, CAUSE_SERVICE);
		return 0;
	case TYPE_OPEN:
		if (!ended || !ask->path_bytes)
			return EPROTO;
		slot_open(slot, (const char *)(ask + 1));
		return send_report(supervisor, slot);
	case TYPE_FREEZE:
		return ended ? on_freeze(supervisor, slot, ask) : EPROTO;
	default:
		if (!ended)
			return EPROTO;
		slot_release(slot);
		return send_report(supervisor, slot);
	}
}

static int on_request(struct supervisor *supervisor, const union request *request, size_t length,
		      const int *fds, size_t count)
{
	uint32_t type = request->header.type;
	struct slot *slot;

	if (!request_fits(request, length, count))
		return EPROTO;
	slot = &supervisor->slots[request->header.slot];
	if ((type == TYPE_MAKE) != (slot->state == STATE_FREE))
		return EPROTO;
	if (type == TYPE_MAKE)
		return on_make(supervisor, slot, &request->make, fds);
	if (type == TYPE_START)
		return on_start(slot, &request->start, fds, count);
	return on_ask(supervisor, slot, &request->ask);
}

static int hear_service(struct supervisor *supervisor)
{
	union request request;
	int fds[DESCRIPTORS_MAX], error;
	size_t length, count;

	for (;;) {
		error = message_receive(SERVICE, &request, sizeof request, &length, fds, &count);
		if (error)
			return error == EAGAIN ? 0 : error;
		error = on_request(supervisor, &request, length, fds, count);
		if (error)
			return error;
	}
}

/* Everything that init has said so far. Its end of file is not news: its death is. */
static int hear_init(struct supervisor *supervisor, struct slot *slot)
{
	int error;

	do
		error = slot_hear(slot);
	while (!error);
	if (error == EPIPE || error == ECONNRESET)
		return epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, slot->control, NULL) ? errno : 0;
	if (error != EAGAIN)
		slot_kill(slot, CAUSE_NONE);
	return send_report(supervisor, slot);
}

static void hear_oom(struct slot *slot)
{
	uint64_t notices;

	if (read(slot->oom, &notices, sizeof notices) > 0)
		slot_kill(slot, CAUSE_MEMORY);
}

/* An event may be older than its slot's state: each of these looks again before it acts. */
static int on_event(struct supervisor *supervisor, enum about about, struct slot *slot)
{
	int error;

	switch (about) {
	case ABOUT_CONTROL:
		return slot->control < 0 ? 0 : hear_init(supervisor, slot);
	case ABOUT_TIMER:
		if (slot->timer >= 0 && slot_check_limits(slot))
			slot_kill(slot, CAUSE_NONE);
		return 0;
	case ABOUT_OOM:
		if (slot_lives(slot))
			hear_oom(slot);
		return 0;
	case ABOUT_FREEZER:
		error = slot->freezer < 0 ? EAGAIN : slot_end_freeze(slot);
		if (error)
			return error == EAGAIN ? 0 : error;
		return send_report(supervisor, slot);
	default:
		if (slot->init < 0)
			return 0;
		error = slot_bury(slot);
		if (error)
			return error == EAGAIN ? 0 : error;
		return send_report(supervisor, slot);
	}
}

static int on_service(struct supervisor *supervisor, uint32_t events)
{
	int error = 0;

	if (events & EPOLLOUT)
		error = send_waiting_reports(supervisor);
	return error ? error : hear_service(supervisor);
}

static int serve(struct supervisor *supervisor)
{
	struct epoll_event events[EVENTS];
	int error = 0, count;

	while (!error) {
		count = epoll_wait(supervisor->epoll, events, EVENTS, -1);
		if (count < 0 && errno != EINTR)
			return errno;
		for (int i = 0; !error && i < count; i++) {
			enum about about = (enum about)(events[i].data.u64 >> 32);
			struct slot *slot = &supervisor->slots[events[i].data.u64 & UINT32_MAX];

			error = about == ABOUT_SERVICE ? on_service(supervisor, events[i].events) :
							 on_event(supervisor, about, slot);
		}
	}
	return error;
}

/* Leave nothing alive, and wait until it is so. */
static void end_all(struct supervisor *supervisor)
{
	siginfo_t end;

	for (uint32_t i = 0; i < SLOTS_MAX; i++)
		if (supervisor->slots[i].state != STATE_FREE)
			slot_kill(&supervisor->slots[i], CAUSE_NONE);
	while (waitid(P_ALL, 0, &end, WEXITED | __WALL) == 0 || errno == EINTR)
		;
}

static int leave_host(void)
{
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		return errno;
	/* What a sandbox is cloned from must stay readable to us: its id maps are written through /proc. */
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) ? errno : 0;
}

/* Every sandbox takes a handful of descriptors here. */
static int raise_open_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return errno;
	files.rlim_cur = files.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &files) ? errno : 0;
}

static int arrange_descriptors(void)
{
	int nothing = dup3(STDIN_FILENO, SERVICE, O_CLOEXEC) < 0 ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);

	if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0)
		return errno;
	close(nothing);
	return fcntl(SERVICE, F_SETFL, O_NONBLOCK) ? errno : 0;
}

static int prepare(struct supervisor *supervisor, pid_t keeper, char *const *view)
{
	struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t none;
	int error;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* An ignored SIGCHLD would reap init before its end could be told. */
	sigaction(SIGCHLD, &by_default, NULL);
	setsid();
	/* Sandboxes, which have other ids, walk through the directories that we make. */
	umask(022);
	error = enter_outer_namespace(STDOUT_FILENO);
	if (!error)
		error = leave_host();
	if (!error)
		error = narrow_view(view[0], view + 1);
	if (!error)
		error = arrange_descriptors();
	if (!error)
		error = raise_open_files();
	if (!error)
		error = cpu_be_prompt();
	/* After the change of ids and of namespace, which clears it. */
	if (!error)
		error = die_with_keeper(keeper);
	if (error)
		return error;
	supervisor->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (supervisor->epoll < 0)
		return errno;
	return watch(supervisor, SERVICE, ABOUT_SERVICE, 0);
}

int supervise(pid_t keeper, char *const *view)
{
	static struct supervisor supervisor;
	int error = prepare(&supervisor, keeper, view);

	if (!error)
		error = serve(&supervisor);
	end_all(&supervisor);
	/* The service closed its end, or the keeper was gone before we began: so we are told to stop. */
	return error == EPIPE || error == ECONNRESET || error == ECANCELED ? 0 : error;
}

/*
 * init.c - pid 1 of a sandbox, from the fork of pid 2 on: reap, report, exit.
 *
 * Its exit ends the sandbox: the kernel kills whatever else lives in the pid namespace, so nothing that
 * the job left behind holds an answer back. But where nothing is left init stays, and says so: the end of
 * all that a sandbox is made of takes the kernel longer than a short job does, and nobody has to wait for it.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* So many that the job left behind may be dead by the time that it is. */
enum { ORPHANS_MAX = 32 };

static int report_exit(const struct sandbox *sandbox, int status)
{
	struct news news = { .header.type = TYPE_EXITED, .exit_code = -1 };
	struct rusage usage;

	news.clock_ns = clock_now();
	news.since_ns = sandbox->taken_ns;
	/* Of those that were waited for, by us or by the job: getrusage(2), in KiB. */
	getrusage(RUSAGE_CHILDREN, &usage);
	news.max_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
	if (WIFSIGNALED(status))
		news.signal = WTERMSIG(status);
	else
		news.exit_code = WEXITSTATUS(status);
	return tell(sandbox, &news, NULL, 0);
}

/*
 * Everything in a pid namespace but its init descends from init: without a child it is alone. Who is still
 * busy dying is waited for, but not for ever: what goes on forking would keep us here.
 */
static bool is_alone(void)
{
	pid_t pid = 0;

	for (int i = 0; i < ORPHANS_MAX && (pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0; i++)
		;
	return pid < 0 && errno == ECHILD;
}

/*
 * Alone, we say so and wait: the supervisor kills us when nobody needs /box any more, or it is dead, and its
 * end of the socket closed. Otherwise our own end is what ends the others, and the supervisor sees that.
 */
static _Noreturn void report_end(const struct sandbox *sandbox, int status)
{
	struct news news = { .header.type = TYPE_EMPTY };
	struct pollfd supervisor = { .fd = sandbox->control };

	if (report_exit(sandbox, status) || !is_alone())
		_exit(0);
	news.clock_ns = clock_now();
	if (tell(sandbox, &news, NULL, 0))
		_exit(1);
	while (poll(&supervisor, 1, -1) < 0 && errno == EINTR)
		;
	_exit(0);
}

/* Reap what has died; does not come back when the job's main process is among them. */
static void reap(const struct sandbox *sandbox)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		if (pid == sandbox->job)
			report_end(sandbox, status);
}

/* The supervisor's end of the socket closes when it dies: the second guard beside PDEATHSIG. */
int attend(struct sandbox *sandbox, int *index)
{
	struct pollfd watched[] = {
		{ .fd = sandbox->deaths, .events = POLLIN },
		{ .fd = sandbox->control },
		{ .fd = sandbox->handover, .events = POLLIN },
	};
	struct signalfd_siginfo death;

	(void)index;
	for (;;) {
		if (poll(watched, 3, -1) < 0 && errno != EINTR)
			return errno;
		if (watched[1].revents)
			return ECANCELED;
		if (watched[0].revents && read(sandbox->deaths, &death, sizeof death) < 0)
			return errno;
		if (watched[2].revents && hear_calls(sandbox, &watched[2].fd))
			return EIO;
		reap(sandbox);
	}
}

static int watch_deaths(int *deaths)
{
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &child, NULL))
		return errno;
	*deaths = signalfd(-1, &child, SFD_CLOEXEC);
	return *deaths < 0 ? errno : 0;
}

/* In pid 2: as it was before, in a session of its own. */
static int leave_init(struct sandbox *sandbox, int handover)
{
	sigset_t none;

	close(sandbox->deaths);
	close(sandbox->box);
	close(sandbox->handover);
	/* Above 0, 1 and 2, where stdio will be. */
	sandbox->handover = fcntl(handover, F_DUPFD_CLOEXEC, STDIO);
	close(handover);
	if (sandbox->handover < 0)
		return errno;
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) || setsid() < 0)
		return errno;
	return 0;
}

int fork_job(struct sandbox *sandbox, int *index)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&sandbox->job_pidfd,
		.exit_signal = SIGCHLD,
	};
	int pair[2], error = watch_deaths(&sandbox->deaths);

	if (error)
		return error;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return errno;
	sandbox->handover = pair[0];
	sandbox->job = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	*index = 1;
	if (sandbox->job < 0)
		return errno;
	if (!sandbox->job)
		return leave_init(sandbox, pair[1]);
	close(pair[1]);
	return cpu_be_prompt();
}

/*
 * init.c - pid 1 of a sandbox, from the fork of pid 2 on: reap, report, end what is left.
 *
 * What the job left behind holds no answer back: once the job's main process is dead, init kills all that
 * is left and says when it was the last. Then it waits to be killed, since its own end takes the kernel a
 * while, and everything that the sandbox is made of ends with it.
 */
#include "setup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

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
 * Kill all others and wait until there are none. kill(2) reaches everything in a pid namespace but its
 * init, and no fork escapes it; who loses its parent meanwhile becomes our child before the parent can be
 * waited for.
 */
static int end_all_others(void)
{
	if (kill(-1, SIGKILL) && errno != ESRCH)
		return errno;
	while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
		;
	return errno == ECHILD ? 0 : errno;
}

/* The supervisor kills us when nobody needs /box any more; or it is dead, and its end of the socket closed. */
static _Noreturn void report_end(const struct sandbox *sandbox, int status)
{
	struct news news = { .header.type = TYPE_EMPTY };
	struct pollfd supervisor = { .fd = sandbox->control };
	int error = report_exit(sandbox, status);

	if (!error)
		error = end_all_others();
	news.clock_ns = clock_now();
	if (!error)
		error = tell(sandbox, &news, NULL, 0);
	while (!error && poll(&supervisor, 1, -1) < 0 && errno == EINTR)
		;
	_exit(error ? 1 : 0);
}

/* Reap all that have died; does not come back when the job's main process is among them. */
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
	sandbox->handover = handover;
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) || setsid() < 0)
		return errno;
	return 0;
}

int fork_job(struct sandbox *sandbox, int *index)
{
	int pair[2], error = watch_deaths(&sandbox->deaths);

	if (error)
		return error;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return errno;
	sandbox->handover = pair[0];
	sandbox->job = fork();
	*index = 1;
	if (sandbox->job < 0)
		return errno;
	if (!sandbox->job)
		return leave_init(sandbox, pair[1]);
	close(pair[1]);
	return cpu_be_prompt();
}

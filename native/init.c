/*
 * init.c - pid 1 of a sandbox once its job runs: reap, report, exit.
 *
 * Its exit ends the sandbox: the kernel kills whatever else lives in the pid namespace, so
 * nothing that the job left behind holds an answer back.
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

static _Noreturn void report_exit(const struct sandbox *sandbox, int status)
{
	struct news news = { .header.type = TYPE_EXITED, .exit_code = -1 };
	struct rusage usage;

	news.clock_ns = clock_now();
	/* Of those that were waited for, by us or by the job: getrusage(2), in KiB. */
	getrusage(RUSAGE_CHILDREN, &usage);
	news.max_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
	if (WIFSIGNALED(status))
		news.signal = WTERMSIG(status);
	else
		news.exit_code = WEXITSTATUS(status);
	tell(sandbox, &news, -1);
	_exit(0);
}

/* Reap all that have died; does not come back when the job's main process is among them. */
static void reap(const struct sandbox *sandbox, pid_t job)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		if (pid == job)
			report_exit(sandbox, status);
}

/* The supervisor's end of the socket closes when it dies: the second guard beside PDEATHSIG. */
static _Noreturn void attend(struct sandbox *sandbox, pid_t job, int deaths)
{
	struct pollfd watched[] = {
		{ .fd = deaths, .events = POLLIN },
		{ .fd = sandbox->control },
		{ .fd = sandbox->handover, .events = POLLIN },
	};
	struct signalfd_siginfo death;

	for (;;) {
		if (poll(watched, 3, -1) < 0 && errno != EINTR)
			_exit(1);
		if (watched[1].revents)
			_exit(1);
		if (watched[0].revents && read(deaths, &death, sizeof death) < 0)
			_exit(1);
		if (watched[2].revents && hear_calls(sandbox, &watched[2].fd))
			_exit(1);
		reap(sandbox, job);
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

/* In the job's process: as it was before, in a session of its own. */
static int leave_init(struct sandbox *sandbox, int deaths, const int *handover)
{
	sigset_t none;

	close(deaths);
	close(handover[1]);
	sandbox->handover = handover[0];
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) || setsid() < 0)
		return errno;
	return 0;
}

/* What init needs while the job runs: its socket, the notices of deaths, the calls. No authority. */
static int shed(struct sandbox *sandbox, int deaths)
{
	int keep[4] = { sandbox->control, deaths }, index = 0, error;
	size_t count = 2;

	if (sandbox->handover >= 0)
		keep[count++] = sandbox->handover;
	if (sandbox->answers >= 0)
		keep[count++] = sandbox->answers;
	error = close_all_but(keep, count);

	if (!error)
		error = cpu_be_prompt();
	if (!error)
		error = drop_capabilities(sandbox, &index);
	return error ? error : set_no_new_privs(sandbox, &index);
}

int fork_job(struct sandbox *sandbox, int *index)
{
	int deaths = -1, handover[] = { -1, -1 }, error = watch_deaths(&deaths);
	pid_t job;

	if (error)
		return error;
	if (sandbox->start.listens && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover))
		return errno;
	job = fork();
	if (job < 0)
		return errno;
	if (!job)
		return leave_init(sandbox, deaths, handover);
	*index = 1;
	/* Its other end goes with what is not kept. */
	sandbox->handover = handover[1];
	error = shed(sandbox, deaths);
	if (error)
		return error;
	attend(sandbox, job, deaths);
}

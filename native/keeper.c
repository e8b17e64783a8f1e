/*
 * keeper.c - starts supervisors, network hubs and programs of images, and tells how they end.
 *
 * Why there is this fourth process. Once everything is open the service gives up, for good, what it
 * does not need any more (jail/shed.py): its filter, Landlock and no_new_privs pass to whatever it
 * starts, and a supervisor under them could not mount. Yet one that was lost must be replaced.
 * So the service starts the keeper before it sheds, and the keeper forks each supervisor; and the hub and programs
 * of images, which are made on need, but whose commands it is told at once: a service that was taken over later has
 * no say in them, and none of a kind that its operator has no use for.
 * It is told, and not started with them, because a job can read its arguments: init, its fork, shows them.
 *
 * It is small on purpose: one thread, no allocation, no privilege that the service did not have. All it
 * hears then is "here is the socket for a new one": one byte, one descriptor. It is started with
 * its socket to the service as stdin, the outer user namespace as stdout, and the service's private
 * directory as its own. It dies with the service, and what it started with it, by PDEATHSIG.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"
#include "protocol.h"
#include "supervisor.h"

/* Like SERVICE, above 0, 1 and 2, which a supervisor needs. */
enum { NAMESPACE = SERVICE + 1 };

/*
 * What whatever it starts is made of; commands by kind, that of supervisors being none. `forked`: this is the child,
 * and keep() is to end with its exit status.
 */
struct keeper {
	char *const *view;
	struct command commands[KINDS];
	bool forked;
};

static int arrange_descriptors(void)
{
	int nothing;

	if (dup2(STDIN_FILENO, SERVICE) < 0 || dup2(STDOUT_FILENO, NAMESPACE) < 0)
		return errno;
	nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0)
		return errno;
	/* Whatever the service had open and did not mean to hand on. */
	return close_range(NAMESPACE + 1, ~0U, 0) ? errno : 0;
}

static int watch_children(int *ends)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	/* An ignored SIGCHLD would reap a child before its end could be told. */
	if (sigaction(SIGCHLD, &by_default, NULL) || sigprocmask(SIG_SETMASK, &child, NULL))
		return errno;
	*ends = signalfd(-1, &child, SFD_CLOEXEC);
	return *ends < 0 ? errno : 0;
}

static int prepare(int *ends)
{
	int error = arrange_descriptors();

	setsid();
	if (!error)
		error = watch_children(ends);
	if (!error)
		error = die_with_peer(SERVICE);
	if (error)
		return error;
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? errno : 0;
}

/* In the child: take the places that supervise() expects, and keep nothing of the keeper's. */
static int become_supervisor(pid_t keeper, int socket, char *const *view)
{
	if (dup2(socket, STDIN_FILENO) < 0 || dup2(NAMESPACE, STDOUT_FILENO) < 0)
		return errno;
	if (close_range(SERVICE, ~0U, 0))
		return errno;
	return supervise(keeper, view);
}

static int become(const struct keeper *keeper, pid_t pid, enum kind kind, int socket)
{
	if (kind == KIND_SUPERVISOR)
		return become_supervisor(pid, socket, keeper->view);
	return become_program(pid, kind, socket, NAMESPACE, &keeper->commands[kind]);
}

static int start(struct keeper *keeper, enum kind kind, int socket)
{
	struct kept kept = { 0 };
	pid_t pid = getpid(), child = fork();

	if (!child) {
		keeper->forked = true;
		return become(keeper, pid, kind, socket);
	}
	if (child < 0) {
		kept.status = errno;
		kept.ended = 1;
	} else {
		kept.pid = child;
	}
	/* Only the child has it now: its end is the end of file that the service sees. */
	close(socket);
	return message_send(SERVICE, &kept, sizeof kept, NULL, 0);
}

static int hear_command(struct command *command)
{
	int fds[DESCRIPTORS_MAX], error;
	size_t length, count;

	error = message_receive(SERVICE, command->text, sizeof command->text, &length, fds, &count);
	return error ? error : command_read(command, length);
}

static int hear_commands(struct keeper *keeper)
{
	int error = 0;

	for (enum kind kind = KIND_SUPERVISOR + 1; !error && kind < KINDS; kind++)
		error = hear_command(&keeper->commands[kind]);
	return error;
}

static bool is_known(const struct keeper *keeper, unsigned char kind)
{
	return kind == KIND_SUPERVISOR || (kind < KINDS && keeper->commands[kind].arguments[0]);
}

static int hear_service(struct keeper *keeper)
{
	int fds[DESCRIPTORS_MAX], error;
	size_t length, count;
	unsigned char kind;

	error = message_receive(SERVICE, &kind, sizeof kind, &length, fds, &count);
	if (error)
		return error;
	if (count != 1 || !is_known(keeper, kind))
		return EPROTO;
	return start(keeper, kind, fds[0]);
}

static int tell_ends(int ends)
{
	struct signalfd_siginfo notice;
	struct kept kept = { .ended = 1 };
	int status, error = 0;

	if (read(ends, &notice, sizeof notice) < 0)
		return errno;
	while (!error && (kept.pid = waitpid(-1, &status, WNOHANG)) > 0) {
		kept.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
		error = message_send(SERVICE, &kept, sizeof kept, NULL, 0);
	}
	return error;
}

static int serve(struct keeper *keeper, int ends)
{
	struct pollfd events[] = { { .fd = SERVICE, .events = POLLIN }, { .fd = ends, .events = POLLIN } };
	int error = 0;

	while (!error && !keeper->forked) {
		if (poll(events, 2, -1) < 0)
			return errno;
		if (events[1].revents)
			error = tell_ends(ends);
		if (!error && events[0].revents)
			error = hear_service(keeper);
	}
	return error;
}

int keep(char *const *view)
{
	static struct keeper keeper;
	int ends, error = prepare(&ends);

	keeper.view = view;
	if (!error)
		error = hear_commands(&keeper);
	if (!error)
		error = serve(&keeper, ends);
	/* The service closed its end, or was gone before we began: that is how we are told to stop. */
	return !keeper.forked && (error == EPIPE || error == ECONNRESET || error == ECANCELED) ? 0 : error;
}

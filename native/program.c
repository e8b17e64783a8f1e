/*
 * program.c - from a fork of the keeper to the program of a kind.
 *
 * What each kind runs was fixed before the service served: see keeper.c. All have their socket as stdin, an end of
 * which is how they are told to stop, the service's stderr, no environment, and no other descriptor but stdout.
 *
 * The network hub joins sandboxes to networks. It is root of the outer user namespace, as the supervisor is, and of
 * nothing anywhere else; its network namespace is still the host's, for it begins with what leads out of the one that
 * it makes. Its stdout is nothing.
 *
 * The program of images fetches, keeps and removes them. It is the service's user, in the host's namespaces, with no
 * more than the service had before it shed. Its stdout is the outer user namespace: what unpacks a layer for it is to
 * be root there.
 */
#include "program.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "outer.h"
#include "supervisor.h"

int command_read(struct command *command, size_t length)
{
	char *place = command->text, *end = place + length;
	size_t count = 0;

	if (!length || end[-1])
		return EPROTO;
	if (length == 1)
		end = place;
	else if (*place != '/')
		return EPROTO;
	for (; place < end; place += strlen(place) + 1) {
		if (count == COMMAND_ARGUMENTS_MAX)
			return EPROTO;
		command->arguments[count++] = place;
	}
	command->arguments[count] = NULL;
	return 0;
}

/* Each in the user namespace where it acts, with what it needs of that as stdout: the keeper's own is /dev/null. */
static int take_place(enum kind kind, int namespace)
{
	if (kind == KIND_HUB)
		return enter_outer_namespace(namespace);
	return dup2(namespace, STDOUT_FILENO) < 0 ? errno : 0;
}

static int arrange_descriptors(int socket)
{
	if (dup2(socket, STDIN_FILENO) < 0)
		return errno;
	return close_range(SERVICE, ~0U, 0) ? errno : 0;
}

/* What the keeper blocks would stay so across execve(). */
static int unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) ? errno : 0;
}

int become_program(pid_t keeper, enum kind kind, int socket, int namespace, const struct command *command)
{
	/* Not the service's, and none of ours: the program says itself where it finds what it runs. */
	char *const environment[] = { NULL };
	int error = take_place(kind, namespace);

	if (!error)
		error = arrange_descriptors(socket);
	if (!error)
		error = unblock_signals();
	if (error)
		return error;
	setsid();
	/* It needs no set-id program. */
	if (chdir("/") || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return errno;
	error = die_with_keeper(keeper);
	if (error)
		return error;
	execve(command->arguments[0], command->arguments, environment);
	return errno;
}

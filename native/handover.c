/*
 * handover.c - the way of a job, from the supervisor by way of init to pid 2.
 *
 * The plan is bytes from the service, mapped read-only. It is read inside the sandbox, by processes
 * that have authority over this sandbox alone, and every length in it is checked.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plan.h"
#include "supervisor.h"

int tell(const struct sandbox *sandbox, struct news *news, const int *fds, size_t count)
{
	news->header.slot = sandbox->make->header.slot;
	if (count)
		return message_send(sandbox->control, news, sizeof *news, fds, count);
	/* What a policy has to allow beside execve() and exit_group(): a failing execve() is told by it. */
	return write(sandbox->control, news, sizeof *news) < 0 ? errno : 0;
}

int map_bytes(int fd, uint64_t bytes, const char **place)
{
	void *mapped = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);

	if (mapped == MAP_FAILED)
		return errno;
	*place = mapped;
	return 0;
}

/* An array of `count` strings of the plan, ended by NULL. */
static int list_strings(const char **place, const char *end, uint32_t count, char ***list)
{
	size_t bytes = ((size_t)count + 1) * sizeof(char *);
	char **strings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (strings == MAP_FAILED)
		return errno;
	for (uint32_t i = 0; i < count; i++) {
		strings[i] = (char *)plan_string(place, end);
		if (!strings[i])
			return EBADMSG;
	}
	*list = strings;
	return 0;
}

static int read_plan(struct sandbox *sandbox)
{
	const struct start *start = &sandbox->start;
	const char *place = NULL, *end;
	int error = map_bytes(sandbox->received[JOB_PLAN], start->plan_bytes, &place);

	if (error)
		return error;
	end = place + start->plan_bytes;
	error = list_strings(&place, end, start->arguments, &sandbox->arguments);
	if (!error)
		error = list_strings(&place, end, start->variables, &sandbox->variables);
	if (error)
		return error;
	sandbox->search = plan_string(&place, end);
	sandbox->directory = sandbox->search ? plan_string(&place, end) : NULL;
	return sandbox->directory && start->arguments ? 0 : EBADMSG;
}

/*
 * Two barriers that nobody would miss until they were needed, tried once more: a change of ids since would
 * have cleared the one, and what the supervisor has open would hide its death.
 */
static int check_guards(void)
{
	int signal = 0;

	if (prctl(PR_GET_PDEATHSIG, &signal, 0, 0, 0))
		return errno;
	return signal == SIGKILL && !is_open(SERVICE) ? 0 : ENOTRECOVERABLE;
}

/* Init is given what explains the denials, too, and the places; it keeps that to itself. */
static int receive(struct sandbox *sandbox, int socket)
{
	size_t length, count, expected = JOB_DESCRIPTORS;
	int error = message_receive(socket, &sandbox->start, sizeof sandbox->start, &length,
				    sandbox->received, &count);

	if (error)
		return error;
	sandbox->taken_ns = clock_now();
	if (sandbox->job)
		expected += sandbox->start.keeps + sandbox->start.lends +
			    (sandbox->start.explains ? EXPLAINING_DESCRIPTORS : 0);
	return length == sizeof sandbox->start && count == expected ? 0 : EBADMSG;
}

const int *places_of(const struct sandbox *sandbox)
{
	return sandbox->received + JOB_DESCRIPTORS + (sandbox->start.explains ? EXPLAINING_DESCRIPTORS : 0);
}

/* Room for what is denied, shared with the service. The answers stay open. */
static int prepare_to_explain(struct sandbox *sandbox)
{
	const int *fds = sandbox->received + JOB_DESCRIPTORS;
	void *denials;

	sandbox->answers = -1;
	if (!sandbox->start.explains)
		return 0;
	sandbox->answers = fds[0];
	denials = mmap(NULL, sizeof *sandbox->denials, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
	if (denials == MAP_FAILED)
		return errno;
	sandbox->denials = denials;
	return 0;
}

/* Pid 2 says when it is ready. Had it failed, the supervisor would know of it already. */
static int report_built(struct sandbox *sandbox)
{
	struct news news = { .header.type = TYPE_BUILT };
	char byte;
	int error = read(sandbox->handover, &byte, 1) == 1 ? check_guards() : ECANCELED;
	/* Whoever is to lead its network somewhere is given it with the sandbox: nobody looks for it by a number. */
	int network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int fds[BUILT_DESCRIPTORS] = { sandbox->box, sandbox->job_pidfd, network };

	if (!error && network < 0)
		error = errno;
	if (!error)
		error = tell(sandbox, &news, fds, BUILT_DESCRIPTORS);
	for (size_t i = 0; i < BUILT_DESCRIPTORS; i++)
		close(fds[i]);
	return error;
}

int receive_job(struct sandbox *sandbox, int *index)
{
	int error = report_built(sandbox);

	if (error)
		return error;
	*index = 1;
	error = receive(sandbox, sandbox->control);
	if (error)
		return error;
	*index = 2;
	return prepare_to_explain(sandbox);
}

/* Init keeps what it needs while the job runs: its socket, the notices of deaths and, maybe, the calls. */
static int keep_for_init(struct sandbox *sandbox)
{
	int keep[4] = { sandbox->control, sandbox->deaths };
	size_t count = 2;

	if (sandbox->start.listens)
		keep[count++] = sandbox->handover;
	else
		sandbox->handover = -1;
	if (sandbox->answers >= 0)
		keep[count++] = sandbox->answers;
	return close_all_but(keep, count);
}

int hand_over(struct sandbox *sandbox, int *index)
{
	int error;

	error = message_send(sandbox->handover, &sandbox->start, sizeof sandbox->start,
			     sandbox->received, JOB_DESCRIPTORS);
	*index = 1;
	return error ? error : keep_for_init(sandbox);
}

int receive_start(struct sandbox *sandbox, int *index)
{
	int error;

	if (write(sandbox->handover, "r", 1) != 1)
		return errno;
	error = receive(sandbox, sandbox->handover);
	*index = 1;
	if (!error)
		error = map_bytes(sandbox->received[JOB_FILTER], sandbox->start.filter_bytes, &sandbox->filter);
	return error ? error : read_plan(sandbox);
}

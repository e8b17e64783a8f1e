/*
 * listener.c - calls of the job that its filter hands to init: seccomp_unotify(2).
 *
 * Two kinds come. Counted calls are allowed so many times: the kernel itself bounds neither how many
 * record locks there are nor, where a policy wants it, how often execve() is made. Denied calls
 * come from a job that asked to have its denials explained.
 *
 * What is decided depends on the number of the call and on nothing else: what its arguments point at
 * could change before the kernel looks there. So letting a call go on is safe here.
 *
 * Init hears them and not the supervisor, which has other sandboxes to look after: whoever makes calls
 * waits for itself here, and its own cgroup pays. The kernel's lock on a filter's notices is shared with the
 * job's threads, which may be made slow on purpose.
 */
#include "setup.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* How the policy answers a denied call. What it does not list is newer than it; a negative number is no call. */
static struct answer look_up(const struct sandbox *sandbox, int call)
{
	struct answer answer = { 0 };

	if (call < 0)
		return (struct answer){ .error = EPERM };
	if (pread(sandbox->answers, &answer, sizeof answer, (off_t)call * (off_t)sizeof answer) !=
		    sizeof answer || !answer.error)
		return (struct answer){ .error = ENOSYS };
	return answer;
}

static void note(struct denials *denials, const struct seccomp_data *call, uint16_t arguments)
{
	struct denial denial = { .count = 1, .call = (uint32_t)call->nr };

	for (uint16_t i = 0; i < arguments && i < CALL_ARGUMENTS; i++)
		denial.arguments[i] = call->args[i];
	for (uint32_t i = 0; i < denials->count; i++) {
		struct denial *known = &denials->listed[i];

		if (known->call == denial.call &&
		    !memcmp(known->arguments, denial.arguments, sizeof denial.arguments)) {
			known->count++;
			return;
		}
	}
	if (denials->count < DENIALS_MAX)
		denials->listed[denials->count++] = denial;
	else
		denials->omitted++;
}

static struct counted *find_counted(struct sandbox *sandbox, uint32_t call)
{
	for (uint32_t i = 0; i < sandbox->start.counted_calls; i++)
		if (sandbox->start.counted[i].call == call)
			return &sandbox->start.counted[i];
	return NULL;
}

static struct seccomp_notif_resp judge(struct sandbox *sandbox, const struct seccomp_notif *notice)
{
	struct counted *counted = find_counted(sandbox, (uint32_t)notice->data.nr);
	struct seccomp_notif_resp response = { .id = notice->id };
	struct answer answer = { .error = EPERM };

	if (counted && counted->maximum) {
		counted->maximum--;
		response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		return response;
	}
	if (sandbox->denials) {
		answer = look_up(sandbox, notice->data.nr);
		note(sandbox->denials, &notice->data, answer.arguments);
	}
	response.error = counted ? -(int)counted->error : -(int)answer.error;
	return response;
}

static int answer_call(struct sandbox *sandbox, int listener)
{
	struct seccomp_notif notice = { 0 };
	struct seccomp_notif_resp response;

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice))
		/* ENOENT: who made the call is dead by now. */
		return errno == ENOENT || errno == EINTR ? 0 : errno;
	response = judge(sandbox, &notice);
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) && errno != ENOENT)
		return errno;
	return 0;
}

static int receive_listener(int handover, int *listener)
{
	int fds[DESCRIPTORS_MAX], error;
	size_t length, count = 0;
	char byte;

	error = message_receive(handover, &byte, 1, &length, fds, &count);
	*listener = error || !count ? -1 : fds[0];
	/* The job's process ended before it had a filter. */
	return error == EPIPE || error == ECONNRESET ? 0 : error;
}

int hear_calls(struct sandbox *sandbox, int *fd)
{
	struct pollfd watched = { .fd = *fd, .events = POLLIN };
	int listener = -1, error = 0;

	/* Receiving a call blocks when there is none; what was told of may be gone. */
	if (poll(&watched, 1, 0) <= 0)
		return 0;
	if (*fd != sandbox->handover && watched.revents & POLLIN)
		return answer_call(sandbox, *fd);
	if (*fd == sandbox->handover)
		error = receive_listener(*fd, &listener);
	else if (!(watched.revents & POLLHUP))
		/* Neither a call nor the end: without its listener the job must not go on. */
		return EIO;
	/* The listener has come; or nobody is left under the filter. */
	close(*fd);
	sandbox->handover = -1;
	*fd = listener;
	return error;
}

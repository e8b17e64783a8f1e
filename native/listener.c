/*
 * listener.c - calls that a job's filter hands to the supervisor: seccomp_unotify(2).
 *
 * Two kinds come. Counted calls are allowed so many times: the kernel itself bounds neither how many
 * record locks there are nor, where a policy wants it, how often execve() is made. Denied calls
 * come from a job that asked to have its denials explained.
 *
 * What is decided depends on the number of the call and on nothing else: what its arguments point at
 * could change before the kernel looks there. So letting a call go on is safe here.
 *
 * Every call costs us time that the job does not pay for. So there is an end to it: the listener is
 * closed, and from then on the kernel answers ENOSYS to whatever the filter would hand over.
 */
#include "slot.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* How the policy answers a denied call; what it does not list is newer than it. */
static struct answer look_up(const struct slot *slot, uint32_t call)
{
	struct answer answer;

	if (slot->answers >= 0 && pread(slot->answers, &answer, sizeof answer,
					(off_t)call * (off_t)sizeof answer) == sizeof answer)
		return answer;
	return (struct answer){ .error = ENOSYS, .arguments = CALL_ARGUMENTS };
}

static void note(struct slot *slot, const struct seccomp_data *call, uint16_t arguments)
{
	struct report *report = &slot->report;
	struct denial denial = { .count = 1, .call = (uint32_t)call->nr };

	for (uint16_t i = 0; i < arguments && i < CALL_ARGUMENTS; i++)
		denial.arguments[i] = call->args[i];
	for (uint32_t i = 0; i < report->denial_count; i++) {
		struct denial *known = &report->denials[i];

		if (known->call == denial.call &&
		    !memcmp(known->arguments, denial.arguments, sizeof denial.arguments)) {
			known->count++;
			return;
		}
	}
	if (report->denial_count < DENIALS_MAX)
		report->denials[report->denial_count++] = denial;
	else
		report->denials_omitted++;
}

static struct counted *find_counted(struct slot *slot, uint32_t call)
{
	for (uint32_t i = 0; i < slot->counted_calls; i++)
		if (slot->counted[i].call == call)
			return &slot->counted[i];
	return NULL;
}

/* Returns 0 to let the call go on, or the errno value that it gets. */
static int judge(struct slot *slot, const struct seccomp_data *call)
{
	struct counted *counted = find_counted(slot, (uint32_t)call->nr);
	struct answer answer;

	if (counted && counted->maximum) {
		counted->maximum--;
		return 0;
	}
	answer = look_up(slot, (uint32_t)call->nr);
	if (slot->answers >= 0)
		note(slot, call, answer.arguments);
	return counted ? (int)counted->error : answer.error;
}

static void stop_listening(struct slot *slot)
{
	close(slot->listener);
	slot->listener = -1;
}

int slot_hear_call(struct slot *slot)
{
	struct pollfd listener = { .fd = slot->listener, .events = POLLIN };
	struct seccomp_notif notice = { 0 };
	struct seccomp_notif_resp response = { 0 };
	int error;

	/* Receiving blocks when there is nothing; what the event told of may be gone. */
	if (poll(&listener, 1, 0) <= 0)
		return 0;
	if (!(listener.revents & POLLIN)) {
		/* Nobody is left under the filter. */
		stop_listening(slot);
		return 0;
	}
	if (ioctl(slot->listener, SECCOMP_IOCTL_NOTIF_RECV, &notice))
		/* ENOENT: who made the call is dead by now. */
		return errno == ENOENT || errno == EINTR ? 0 : errno;
	error = judge(slot, &notice.data);
	response.id = notice.id;
	response.error = -error;
	response.flags = error ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	if (ioctl(slot->listener, SECCOMP_IOCTL_NOTIF_SEND, &response) && errno != ENOENT)
		return errno;
	if (!--slot->notices)
		stop_listening(slot);
	return 0;
}

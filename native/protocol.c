/* protocol.c - one packet, with descriptors, over a SOCK_SEQPACKET socket. */
#include "protocol.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	char bytes[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
	struct cmsghdr align;
};

int message_send(int socket, const void *bytes, size_t length, const int *fds, size_t count)
{
	struct iovec part = { .iov_base = (void *)bytes, .iov_len = length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	union control control = { 0 };
	struct cmsghdr *rights;

	if (count > DESCRIPTORS_MAX)
		return E2BIG;
	if (count) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		rights = CMSG_FIRSTHDR(&message);
		if (!rights)
			return EINVAL;
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * count);
	}
	while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

int die_with_peer(int socket)
{
	struct pollfd peer = { .fd = socket };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return errno;
	if (poll(&peer, 1, 0) < 0)
		return errno;
	return peer.revents & (POLLHUP | POLLERR | POLLNVAL) ? ECANCELED : 0;
}

static size_t take_descriptors(struct msghdr *message, int *fds)
{
	struct cmsghdr *rights = CMSG_FIRSTHDR(message);
	size_t count;

	if (!rights || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
		return 0;
	count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(rights), count * sizeof(int));
	return count;
}

int message_receive(int socket, void *bytes, size_t capacity, size_t *length, int *fds,
		    size_t *count)
{
	struct iovec part = { .iov_base = bytes, .iov_len = capacity };
	union control control;
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes,
	};
	ssize_t got;

	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno;
	if (got == 0)
		return EPIPE;
	*length = (size_t)got;
	*count = take_descriptors(&message, fds);
	if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	for (size_t i = 0; i < *count; i++)
		close(fds[i]);
	*count = 0;
	return EMSGSIZE;
}

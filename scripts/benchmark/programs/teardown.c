/*
 * teardown.c - how long the kernel takes to get to a network namespace that has ended.
 *
 *   teardown SECONDS      a line for each probe, milliseconds, until SECONDS are over
 *
 * The kernel takes dead network namespaces apart in the order of their end, and tells nobody how many
 * wait. But what it takes apart can be seen from a neighbour: of a pair of connected interfaces, one here
 * and one in a namespace that ends, ours goes when that namespace is taken apart.
 *
 * It makes a user namespace of its own, so that it needs no privilege. Exit status 3: this kernel has no
 * such interfaces, or does not let us make them.
 */
#include <err.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CANNOT = 3, PAUSE_MS = 200 };

struct message {
	struct nlmsghdr head;
	struct ifinfomsg link;
	char attributes[256];
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static struct rtattr *begin(struct message *message, unsigned short type)
{
	struct rtattr *attribute = (struct rtattr *)((char *)message + NLMSG_ALIGN(message->head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(0);
	message->head.nlmsg_len = NLMSG_ALIGN(message->head.nlmsg_len) + RTA_LENGTH(0);
	return attribute;
}

static void append(struct message *message, const void *bytes, size_t length)
{
	memcpy((char *)message + message->head.nlmsg_len, bytes, length);
	message->head.nlmsg_len += (uint32_t)NLMSG_ALIGN(length);
}

static void end(struct message *message, struct rtattr *attribute)
{
	attribute->rta_len = (unsigned short)((char *)message + message->head.nlmsg_len - (char *)attribute);
}

static void add(struct message *message, unsigned short type, const void *bytes, size_t length)
{
	struct rtattr *attribute = begin(message, type);

	append(message, bytes, length);
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
}

/* A pair of interfaces, one here and one in the network namespace of that process. */
static void connect_to(int control, pid_t pid)
{
	struct message message = {
		.head = { .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK },
	};
	const struct ifinfomsg none = { 0 };
	struct rtattr *info, *data, *peer;
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[512];
	} answer;

	message.head.nlmsg_len = NLMSG_LENGTH(sizeof message.link);
	info = begin(&message, IFLA_LINKINFO);
	add(&message, IFLA_INFO_KIND, "veth", 4);
	data = begin(&message, IFLA_INFO_DATA);
	peer = begin(&message, VETH_INFO_PEER);
	append(&message, &none, sizeof none);
	add(&message, IFLA_NET_NS_PID, &pid, sizeof pid);
	end(&message, peer);
	end(&message, data);
	end(&message, info);
	if (send(control, &message, message.head.nlmsg_len, 0) < 0 ||
	    recv(control, &answer, sizeof answer, 0) < 0 || answer.error.error)
		exit(CANNOT);
}

static void await_loss(int events)
{
	char buffer[8192] __attribute__((aligned(8)));

	for (;;) {
		ssize_t length = recv(events, buffer, sizeof buffer, 0);
		struct nlmsghdr *head = (struct nlmsghdr *)buffer;

		if (length < 0)
			err(1, "recv");
		for (; NLMSG_OK(head, (uint32_t)length); head = NLMSG_NEXT(head, length))
			if (head->nlmsg_type == RTM_DELLINK)
				return;
	}
}

static int listen_to(unsigned int groups)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
		err(1, "netlink");
	return fd;
}

static pid_t make_namespace(void)
{
	char byte;
	int ends[2];
	pid_t pid;

	if (pipe(ends))
		err(1, "pipe");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ends[1], "b", 1) != 1)
			_exit(CANNOT);
		for (;;)
			pause();
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		exit(CANNOT);
	close(ends[0]);
	return pid;
}

static double probe(int control, int events)
{
	pid_t pid = make_namespace();
	double began;

	connect_to(control, pid);
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) < 0)
		err(1, "waitpid");
	began = now_ms();
	await_loss(events);
	return now_ms() - began;
}

int main(int argc, char **argv)
{
	double until = now_ms() + (argc == 2 ? atof(argv[1]) : 0) * 1e3;
	int control, events;

	if (argc != 2)
		errx(2, "usage: teardown SECONDS");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return CANNOT;
	control = listen_to(0);
	events = listen_to(RTMGRP_LINK);
	do {
		printf("%.3f\n", probe(control, events));
		fflush(stdout);
		usleep(PAUSE_MS * 1000);
	} while (now_ms() < until);
	return 0;
}

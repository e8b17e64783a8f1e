/*
 * main.c - jail-supervisor, started by the service and by nobody else.
 *
 *   jail-supervisor namespace INSTANCES WATCHES NETWORKS
 *                               hold a new user namespace until stdin ends, in which there are so many
 *                               of inotify and so many network namespaces; a byte on stdout says that it
 *                               is there. The service maps ids into it and keeps it open.
 *   jail-supervisor keep PLACE DIRECTORY...
 *                               start supervisors, each a fork of it: see keeper.c and supervisor.c. Of
 *                               the host they see these directories: see view.c
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keeper.h"

/* Documentation/admin-guide/sysctl/user.rst. A kernel without the file was built without the object. */
static int set_maximum(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	if (write(fd, value, strlen(value)) < 0)
		error = errno;
	close(fd);
	return error;
}

/* What a sandbox has of these counts for every namespace above it, at last for the service's user. */
static int hold_namespace(char **numbers)
{
	static const char *const maxima[] = {
		"/proc/sys/user/max_inotify_instances",
		"/proc/sys/user/max_inotify_watches",
		"/proc/sys/user/max_net_namespaces",
	};
	char byte = 'n';
	int error = 0;

	if (unshare(CLONE_NEWUSER))
		return errno;
	for (size_t i = 0; !error && i < sizeof maxima / sizeof maxima[0]; i++)
		error = set_maximum(maxima[i], numbers[i]);
	if (error)
		return error;
	if (write(STDOUT_FILENO, &byte, 1) != 1)
		return errno;
	return read(STDIN_FILENO, &byte, 1) < 0 ? errno : 0;
}

int main(int argc, char **argv)
{
	int error = EINVAL;

	if (argc == 5 && !strcmp(argv[1], "namespace"))
		error = hold_namespace(argv + 2);
	else if (argc >= 3 && !strcmp(argv[1], "keep"))
		error = keep(argv + 2);
	if (error)
		fprintf(stderr, "jail-supervisor: %s: %s\n", argc > 1 ? argv[1] : "usage", strerror(error));
	/* The errno value is the exit status: the service words it for the operator. */
	return error;
}

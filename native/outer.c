/* outer.c - what a child of the keeper does to act in the outer user namespace. */
#include "outer.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int enter_outer_namespace(int namespace)
{
	if (setns(namespace, CLONE_NEWUSER))
		return errno;
	if (setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0))
		return errno;
	return 0;
}

/* The keeper may be gone already: then PDEATHSIG came too late, and we have another parent. */
int die_with_keeper(pid_t keeper)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return errno;
	return getppid() == keeper ? 0 : ECANCELED;
}

/* plan.h - reading the plan of a job: bytes from the service, each length in them checked. */
#ifndef JAIL_PLAN_H
#define JAIL_PLAN_H

#include "protocol.h"

/* One input file of a plan; `path` and `bytes` point into it. */
struct planned_file {
	struct file about;
	const char *path;
	const char *bytes;
};

/* The string at `place`, which moves past its NUL. Returns NULL if it does not end before `end`. */
const char *plan_string(const char **place, const char *end);

/*
 * Past arguments, variables, the search path and the directory, which come first and are for pid 2 to read. Returns 0,
 * or EBADMSG if they do not end before `end`.
 */
int plan_skip(const char **place, const char *end, const struct start *start);

/* The file at `place`, which moves past it. Returns 0, or EBADMSG if it does not end before `end`. */
int plan_file(const char **place, const char *end, struct planned_file *file);

#endif

/* plan.c - reading the plan of a job: bytes from the service, each length in them checked. */
#include "plan.h"

#include <errno.h>
#include <string.h>

const char *plan_string(const char **place, const char *end)
{
	const char *string = *place, *nul = memchr(string, 0, (size_t)(end - string));

	if (!nul)
		return NULL;
	*place = nul + 1;
	return string;
}

int plan_skip(const char **place, const char *end, const struct start *start)
{
	for (uint64_t left = (uint64_t)start->arguments + start->variables + 2; left; left--)
		if (!plan_string(place, end))
			return EBADMSG;
	return 0;
}

int plan_file(const char **place, const char *end, struct planned_file *file)
{
	const char *next = *place;

	if ((size_t)(end - next) < sizeof file->about)
		return EBADMSG;
	/* It need not be aligned. */
	memcpy(&file->about, next, sizeof file->about);
	next += sizeof file->about;
	file->path = plan_string(&next, end);
	if (!file->path || next - file->path != file->about.path_bytes)
		return EBADMSG;
	if ((uint64_t)(end - next) < file->about.bytes)
		return EBADMSG;
	file->bytes = next;
	*place = next + file->about.bytes;
	return 0;
}

/* request.c - what the service may ask of the supervisor: does a packet keep to message.h? */
#include "request.h"

#include <string.h>

#include "cpu.h"

enum { START_DESCRIPTORS = 5 };

static bool fits_make(const struct make *make, size_t length, size_t count)
{
	const char *text = (const char *)(make + 1);
	size_t strings = 0;

	if (length < sizeof *make || make->text_bytes != length - sizeof *make || !make->overlays)
		return false;
	if (make->born > 1 || make->oom_event > 1 || make->joins > DESCRIPTORS_MAX ||
	    (make->cpu_counters != 1 && make->cpu_counters != CPU_COUNTERS_MAX))
		return false;
	if (count != make->joins + 2 * make->born + make->cpu_counters + make->oom_event)
		return false;
	for (uint32_t i = 0; i < make->text_bytes; i++)
		strings += !text[i];
	/* The directory, and a target and its layers for each overlay; the last byte ends the last. */
	return strings == 1 + 2 * (size_t)make->overlays &&
	       !text[make->text_bytes - 1] && memchr(make->id_map, 0, sizeof make->id_map);
}

/* An error of 0 would mean that the call goes on. */
static bool fits_counted(const struct start *start)
{
	if (start->counted_calls > COUNTED_MAX)
		return false;
	for (uint32_t i = 0; i < start->counted_calls; i++)
		if (!start->counted[i].error)
			return false;
	return true;
}

static bool fits_start(const struct start *start, size_t length, size_t count)
{
	return length == sizeof *start && start->explains <= 1 &&
	       count == START_DESCRIPTORS + 2 * start->explains && fits_counted(start) &&
	       memchr(start->scratch_options, 0, sizeof start->scratch_options);
}

static bool fits_ask(const struct ask *ask, size_t length)
{
	const char *path = (const char *)(ask + 1);

	if (length < sizeof *ask || ask->path_bytes != length - sizeof *ask)
		return false;
	return !ask->path_bytes || (!path[ask->path_bytes - 1] && *path);
}

bool request_fits(const union request *request, size_t length, size_t count)
{
	if (length < sizeof request->header || request->header.slot >= SLOTS_MAX)
		return false;
	switch (request->header.type) {
	case TYPE_MAKE:
		return fits_make(&request->make, length, count);
	case TYPE_START:
		return fits_start(&request->start, length, count);
	case TYPE_KILL:
	case TYPE_OPEN:
	case TYPE_RELEASE:
		return !count && fits_ask(&request->ask, length);
	default:
		return false;
	}
}

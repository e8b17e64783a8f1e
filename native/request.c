/* request.c - what the service may ask of the supervisor: does a packet keep to message.h? */
#include "request.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cpu.h"

enum { START_DESCRIPTORS = 5, INSTRUCTION_BYTES = 8, INSTRUCTIONS_MAX = 4096 };

/* Each has one id of the range, of its own: 0 there is the service's user. */
static bool fits_ids(const char *map)
{
	unsigned int init = 0, job = 0, frozen = 0;
	char exact[OPTIONS_BYTES];

	if (sscanf(map, "%*u %u %*u %*u %u %*u %*u %u", &init, &job, &frozen) != 3)
		return false;
	snprintf(exact, sizeof exact, "%d %u 1\n%d %u 1\n%d %u 1\n", INIT_ID, init, JOB_ID, job, FROZEN_ID, frozen);
	return init && job && frozen && init != job && init != frozen && job != frozen && !strcmp(map, exact);
}

static bool fits_make(const struct make *make, size_t length, size_t count)
{
	const char *text = (const char *)(make + 1);
	size_t strings = 0;

	if (length < sizeof *make || make->text_bytes != length - sizeof *make || !make->overlays)
		return false;
	/* Without a cgroup there would be no limits. */
	if (!make->joins == !make->born || make->born > 1 || make->oom_event > 1 || make->joins > DESCRIPTORS_MAX ||
	    (make->cpu_counters != 1 && make->cpu_counters != CPU_COUNTERS_MAX))
		return false;
	if (count != make->joins + 2 * make->born + make->cpu_counters + make->oom_event)
		return false;
	for (uint32_t i = 0; i < make->text_bytes; i++)
		strings += !text[i];
	/* The directory, and a target and its layers for each overlay; the last byte ends the last. */
	return strings == 1 + 2 * (size_t)make->overlays && !text[make->text_bytes - 1] &&
	       memchr(make->id_map, 0, sizeof make->id_map) && fits_ids(make->id_map);
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

static bool fits_filter(const struct start *start)
{
	return start->filter_bytes && start->filter_bytes % INSTRUCTION_BYTES == 0 &&
	       start->filter_bytes <= INSTRUCTIONS_MAX * INSTRUCTION_BYTES &&
	       !start->listens == !(start->counted_calls || start->explains);
}

static bool fits_places(const struct start *start, size_t bytes)
{
	const char *text = (const char *)(start + 1);
	uint32_t paths = 0;

	if (start->places_bytes != bytes || start->keeps > 1 || start->lends > 1 || start->lends_stdin > start->lends ||
	    (start->lent_files && !start->lends) || (bytes && text[bytes - 1]))
		return false;
	for (size_t i = 0; i < bytes; i++) {
		/* None is empty. */
		if (!text[i] && (!i || !text[i - 1]))
			return false;
		paths += !text[i];
	}
	return paths == start->keeps + start->lends;
}

static bool fits_start(const struct start *start, size_t length, size_t count)
{
	return length >= sizeof *start && fits_places(start, length - sizeof *start) && start->explains <= 1 &&
	       count == START_DESCRIPTORS + 2 * start->explains && fits_counted(start) &&
	       fits_filter(start) && start->hosts_bytes <= HOSTS_BYTES_MAX &&
	       start->hosts_bytes <= start->plan_bytes &&
	       memchr(start->scratch_options, 0, sizeof start->scratch_options);
}

static bool fits_ask(const struct ask *ask, size_t length)
{
	const char *path = (const char *)(ask + 1);

	if (length < sizeof *ask || ask->path_bytes != length - sizeof *ask)
		return false;
	return !ask->path_bytes || (!path[ask->path_bytes - 1] && *path);
}

/* The service's user owns what is 0 there; and a path is not cut short by a NUL in the middle. */
static bool fits_place(const struct ask *ask, size_t length)
{
	return fits_ask(ask, length) && ask->path_bytes && ask->path_bytes <= PLACE_BYTES_MAX &&
	       strlen((const char *)(ask + 1)) + 1 == ask->path_bytes && ask->owner;
}

bool stdio_fits(const int *fds)
{
	for (int i = 0; i < 3; i++) {
		int flags = fcntl(fds[i], F_GETFL);
		struct stat about;

		if (flags < 0 || flags & O_PATH || fstat(fds[i], &about))
			return false;
		if (!S_ISFIFO(about.st_mode) && (i || !S_ISREG(about.st_mode)))
			return false;
	}
	return true;
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
	case TYPE_FREEZE:
		return !count && fits_place(&request->ask, length);
	default:
		return false;
	}
}

/*
 * fuzz.c - feed the readers of bytes that come from elsewhere with mutated ones.
 *
 *   fuzz ROUNDS FILE...      each FILE is a seed; its first byte says which reader it is for
 *
 * Built with AddressSanitizer and UndefinedBehaviorSanitizer: a reader that looks past its bytes
 * ends the run. The same sequence every time, so what is found once is found again. With clang,
 * `-fsanitize=fuzzer -DLIBFUZZER` makes it a libFuzzer target of the same seeds.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"
#include "plan.h"
#include "request.h"
#include "slot.h"

enum { INPUT_BYTES_MAX = 8192, SEEDS_MAX = 256, STRINGS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Look at every byte that the reader says is text. */
static size_t touch(const char *text)
{
	volatile size_t length = strlen(text);

	return length;
}

/* Just those bytes on the heap, so that one too far is seen. */
static void *copy(const uint8_t *bytes, size_t length)
{
	void *made = malloc(length ? length : 1);

	if (!made)
		abort();
	return memcpy(made, bytes, length);
}

/* As mount_root() walks the text of a request that fits. */
static void walk_make(const struct make *make)
{
	const char *text = (const char *)(make + 1);

	for (size_t i = 0; i < 1 + 2 * (size_t)make->overlays; i++)
		text += touch(text) + 1;
	touch(make->id_map);
}

/* As open_places() walks its text; and write_files() finds the end of what is its own, write_hosts() its beginning. */
static void walk_start(const struct start *start)
{
	const char *path = (const char *)(start + 1);

	for (uint32_t i = 0; i < start->keeps + start->lends; i++)
		path += touch(path) + 1;
	if (path != (const char *)(start + 1) + start->places_bytes)
		abort();
	touch(start->scratch_options);
	if (start->plan_bytes - start->hosts_bytes > start->plan_bytes || start->hosts_bytes > HOSTS_BYTES_MAX)
		abort();
}

/* Returns whether it is a request, with whatever number of descriptors. */
static int read_request(const uint8_t *bytes, size_t length)
{
	union request *request = copy(bytes, length);
	int fits = 0;

	for (size_t count = 0; count <= DESCRIPTORS_MAX; count++) {
		if (!request_fits(request, length, count))
			continue;
		fits = 1;
		if (request->header.type == TYPE_MAKE)
			walk_make(&request->make);
		else if (request->header.type == TYPE_START)
			walk_start(&request->start);
		else if (request->ask.path_bytes)
			touch((const char *)(&request->ask + 1));
	}
	free(request);
	return fits;
}

/* Returns whether it has a string or a file. */
static int read_plan(const uint8_t *bytes, size_t length)
{
	char *plan = copy(bytes, length);
	const char *place = plan, *end = plan + length, *string;
	struct planned_file file;
	volatile unsigned char last = 0;
	int found = 0;

	for (; found < STRINGS_MAX && (string = plan_string(&place, end)); found++)
		touch(string);
	for (place = plan; !plan_file(&place, end, &file); found++) {
		touch(file.path);
		for (uint64_t i = 0; i < file.about.bytes; i++)
			last ^= (unsigned char)file.bytes[i];
	}
	free(plan);
	return found > 0;
}

/*
 * As the supervisor hears init: the first byte is the state of a slot, and its highest bit whether the exit
 * was told of; the rest is one packet. Returns whether it was taken in.
 */
static int read_news(const uint8_t *bytes, size_t length)
{
	static struct slot slot;
	int pair[2], error = EBADMSG;

	if (!length || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return 0;
	slot_clear(&slot);
	slot.state = (enum state)((*bytes & 127) % (STATE_RELEASED + 1));
	slot.report.exited = *bytes >> 7;
	/* As slot_start() leaves it. */
	slot.parallelism = 1;
	slot.control = pair[0];
	slot.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (length > 1 && send(pair[1], bytes + 1, length - 1, 0) > 0)
		error = slot_hear(&slot);
	if (slot.state > STATE_RELEASED)
		abort();
	close(pair[1]);
	slot_release(&slot);
	return !error;
}

/* What a text becomes: all at once, or cut after `cut` bytes. Just that much room, so that one too far is seen. */
static size_t canonical(const uint8_t *text, size_t length, size_t cut, uint8_t mode, uint8_t *out)
{
	struct canon canon = { .mode = mode & 7, .fold = mode >> 7, .key = { 1, 2 } };
	uint8_t *piece = malloc(length + CANON_SLACK);
	size_t written = 0, bytes;

	if (!piece)
		abort();
	for (size_t at = 0; at < length; at += bytes) {
		bytes = cut && cut < length - at ? cut : length - at;
		size_t made = canon_feed(&canon, text + at, bytes, piece);

		if (made > bytes + CANON_SLACK)
			abort();
		memcpy(out + written, piece, made);
		written += made;
	}
	written += canon_finish(&canon, out + written);
	free(piece);
	return written;
}

/* As jail.judging.ordered goes on; returns whether they are the same. */
static int match_all(const uint8_t *ours, size_t we, const uint8_t *theirs, size_t they, size_t cut,
		     const struct tolerance *tolerance)
{
	struct match match = { .numbers = 1, .tolerance = *tolerance };
	size_t known = 0, done = 0, their_done = 0;

	for (;;) {
		known = cut && cut < we - known ? known + cut : we;
		uint8_t *mine = copy(ours + done, known - done);
		enum match_end end = match_run(&match, mine, known - done, theirs + their_done, they - their_done);

		if (match.our_used > known - done || match.their_used > they - their_done)
			abort();
		done += match.our_used;
		their_done += match.their_used;
		free(mine);
		if (end == MATCH_DIFFER || (end == MATCH_THEIRS && done < we))
			return 0;
		if (known == we)
			return done == we && their_done == they;
	}
}

static void sum_lines(const uint8_t *text, size_t length, size_t cut, struct multiset *sum)
{
	*sum = (struct multiset){ .key = { 3, 4 } };
	for (size_t at = 0, bytes; at < length; at += bytes) {
		bytes = cut && cut < length - at ? cut : length - at;
		multiset_feed(sum, text + at, bytes);
	}
}

/*
 * The first byte is the form and whether case is folded, the second where the texts are cut, and the texts are
 * apart by the first 0. However they are cut, the answers are the same. Returns whether both are there.
 */
static int read_texts(const uint8_t *bytes, size_t length)
{
	const uint8_t *ours = bytes + 2, *apart = length > 2 ? memchr(ours, 0, length - 2) : NULL;
	struct tolerance tolerance = { 0 };
	struct multiset whole, torn;
	int negative;

	if (!apart)
		return 0;
	size_t we = (size_t)(apart - ours), they = length - 3 - we, cut = bytes[1], made, cut_made, their_made;
	uint8_t *mine = malloc(3 * (length + CANON_SLACK)), *cut_mine = mine + length + CANON_SLACK;
	uint8_t *their = cut_mine + length + CANON_SLACK;

	if (!mine)
		abort();
	made = canonical(ours, we, 0, bytes[0], mine);
	cut_made = canonical(ours, we, cut, bytes[0], cut_mine);
	if (made != cut_made || memcmp(mine, cut_mine, made))
		abort();
	sum_lines(mine, made, 0, &whole);
	sum_lines(mine, made, cut, &torn);
	if (whole.sum[0] != torn.sum[0] || whole.sum[1] != torn.sum[1] || whole.lines != torn.lines)
		abort();
	their_made = canonical(apart + 1, they, 0, CANON_TOKENS, their);
	made = canonical(ours, we, 0, CANON_TOKENS, mine);
	if (decimal_read((const uint8_t *)"0.001", 5, &tolerance.absolute, &negative) ||
	    decimal_read((const uint8_t *)"1e-06", 5, &tolerance.relative, &negative))
		abort();
	if (match_all(mine, made, their, their_made, 0, &tolerance) !=
	    match_all(mine, made, their, their_made, cut, &tolerance))
		abort();
	free(mine);
	return 1;
}

static int read_input(const uint8_t *bytes, size_t length)
{
	if (!length)
		return 0;
	switch (*bytes) {
	case 'r':
		return read_request(bytes + 1, length - 1);
	case 'n':
		return read_news(bytes + 1, length - 1);
	case 't':
		return read_texts(bytes + 1, length - 1);
	default:
		return read_plan(bytes + 1, length - 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	read_input(bytes, length);
	return 0;
}

#ifndef LIBFUZZER
struct seed {
	uint8_t bytes[INPUT_BYTES_MAX];
	size_t length;
};

/* xorshift64: George Marsaglia, Xorshift RNGs, Journal of Statistical Software 8 (14), 2003. */
static uint64_t chance(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Flip a bit, set a byte or a word to something at an edge, cut, or repeat a piece. */
static void mutate(struct seed *seed)
{
	static const uint32_t edges[] = { 0, 1, 4, 127, 255, 4096, 65535, INT32_MAX, UINT32_MAX };
	size_t at = 1 + chance() % (seed->length > 1 ? seed->length - 1 : 1), piece;

	if (at >= seed->length)
		return;
	switch (chance() % 5) {
	case 0:
		seed->bytes[at] ^= (uint8_t)(1u << chance() % 8);
		break;
	case 1:
		seed->bytes[at] = (uint8_t)chance();
		break;
	case 2:
		at &= ~(size_t)3;
		if (at && at + 5 <= seed->length)
			memcpy(&seed->bytes[at + 1], &edges[chance() % (sizeof edges / sizeof *edges)], 4);
		break;
	case 3:
		seed->length = at;
		break;
	default:
		piece = seed->length - at;
		if (seed->length + piece <= INPUT_BYTES_MAX) {
			memmove(&seed->bytes[at + piece], &seed->bytes[at], piece);
			seed->length += piece;
		}
	}
}

static int load(const char *path, struct seed *seed)
{
	FILE *file = fopen(path, "rb");

	if (!file)
		return 1;
	seed->length = fread(seed->bytes, 1, sizeof seed->bytes, file);
	return fclose(file);
}

int main(int argc, char **argv)
{
	static struct seed seeds[SEEDS_MAX], tried;
	int count = argc - 2;
	long rounds;

	if (count < 1 || count > SEEDS_MAX)
		return 2;
	for (int i = 0; i < count; i++) {
		/* A seed that no reader takes has been left behind by a change of the layout. */
		if (load(argv[i + 2], &seeds[i]) || !read_input(seeds[i].bytes, seeds[i].length)) {
			fprintf(stderr, "%s: cannot be read; scripts/corpus.py makes the seeds anew\n", argv[i + 2]);
			return 2;
		}
	}
	rounds = strtol(argv[1], NULL, 10);
	for (long round = 0; round < rounds; round++) {
		tried = seeds[chance() % (size_t)count];
		for (uint64_t changes = 1 + chance() % 8; changes; changes--)
			mutate(&tried);
		LLVMFuzzerTestOneInput(tried.bytes, tried.length);
	}
	printf("%ld mutations of %d seeds, nothing found\n", rounds, count);
	return 0;
}
#endif

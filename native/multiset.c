/* multiset.c - lines in any order, as a sum. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "siphash.h"

static void add(uint64_t sum[2], const uint64_t digest[2])
{
	sum[0] += digest[0];
	sum[1] += digest[1] + (sum[0] < digest[0]);
}

void multiset_feed(struct multiset *multiset, const uint8_t *in, size_t bytes)
{
	const uint8_t *end = in + bytes, *newline;
	uint64_t digest[2];

	while (in < end) {
		newline = memchr(in, '\n', (size_t)(end - in));
		if (!multiset->open)
			siphash_begin(&multiset->line, multiset->key);
		multiset->open = !newline;
		siphash_feed(&multiset->line, in, (size_t)((newline ? newline : end) - in));
		if (!newline)
			return;
		siphash_end(&multiset->line, digest);
		add(multiset->sum, digest);
		multiset->lines++;
		in = newline + 1;
	}
}

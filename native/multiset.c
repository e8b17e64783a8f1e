/* multiset.c - lines in any order, as a sum. */
#include <stddef.h>
#include <stdint.h>

#include "siphash.h"

static void add(uint64_t sum[2], const uint64_t digest[2])
{
	sum[0] += digest[0];
	sum[1] += digest[1] + (sum[0] < digest[0]);
}

void multiset_feed(struct multiset *multiset, const uint8_t *in, size_t bytes)
{
	uint64_t digest[2];

	for (size_t i = 0; i < bytes; i++) {
		if (!multiset->open)
			siphash_begin(&multiset->line, multiset->key);
		multiset->open = in[i] != '\n';
		if (multiset->open) {
			siphash_byte(&multiset->line, in[i]);
			continue;
		}
		siphash_end(&multiset->line, digest);
		add(multiset->sum, digest);
		multiset->lines++;
	}
}

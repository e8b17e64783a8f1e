/* siphash.c - SipHash-2-4 with 128 bits, as its authors' reference has it. */
#include "siphash.h"

void siphash_begin(struct siphash *hash, const uint64_t key[2])
{
	hash->v[0] = key[0] ^ 0x736f6d6570736575u;
	/* 0xee tells it from the one with 64 bits. */
	hash->v[1] = key[1] ^ 0x646f72616e646f6du ^ 0xee;
	hash->v[2] = key[0] ^ 0x6c7967656e657261u;
	hash->v[3] = key[1] ^ 0x7465646279746573u;
	hash->tail = hash->bytes = 0;
}

static uint64_t finalize(uint64_t v[4])
{
	for (int i = 0; i < 4; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void siphash_end(struct siphash *hash, uint64_t digest[2])
{
	uint64_t last = hash->tail | hash->bytes << 56;

	hash->v[3] ^= last;
	siphash_round(hash->v);
	siphash_round(hash->v);
	hash->v[0] ^= last;
	hash->v[2] ^= 0xee;
	digest[0] = finalize(hash->v);
	hash->v[1] ^= 0xdd;
	digest[1] = finalize(hash->v);
}

/*
 * siphash.c - SipHash with 128 bits, as its authors' reference has it, with 1 and 3 rounds.
 *
 * That many are what hash tables use: whoever chooses what is hashed never sees a hash, and so cannot
 * learn of the key.
 */
#include "siphash.h"

#include <string.h>

static void mix(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0];
	v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2];
	v[0] = v[0] << 32 | v[0] >> 32;
	v[2] += v[1];
	v[0] += v[3];
	v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2];
	v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0];
	v[2] = v[2] << 32 | v[2] >> 32;
}

static void take_word(struct siphash *hash, uint64_t word)
{
	hash->v[3] ^= word;
	mix(hash->v);
	hash->v[0] ^= word;
}

void siphash_begin(struct siphash *hash, const uint64_t key[2])
{
	hash->v[0] = key[0] ^ 0x736f6d6570736575u;
	/* 0xee tells it from the one with 64 bits. */
	hash->v[1] = key[1] ^ 0x646f72616e646f6du ^ 0xee;
	hash->v[2] = key[0] ^ 0x6c7967656e657261u;
	hash->v[3] = key[1] ^ 0x7465646279746573u;
	hash->tail = hash->bytes = 0;
}

void siphash_feed(struct siphash *hash, const uint8_t *in, size_t bytes)
{
	uint64_t word;

	while (bytes) {
		if (hash->bytes % 8 == 0 && bytes >= sizeof word) {
			/* The order of its bytes does not matter: nobody else reads these hashes. */
			memcpy(&word, in, sizeof word);
			take_word(hash, word);
			hash->bytes += sizeof word;
			in += sizeof word;
			bytes -= sizeof word;
			continue;
		}
		memcpy((uint8_t *)&hash->tail + hash->bytes % 8, in++, 1);
		bytes--;
		if (++hash->bytes % 8)
			continue;
		take_word(hash, hash->tail);
		hash->tail = 0;
	}
}

static uint64_t finalize(uint64_t v[4])
{
	for (int i = 0; i < 3; i++)
		mix(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void siphash_end(struct siphash *hash, uint64_t digest[2])
{
	/* The last word has room for seven bytes and this one. */
	((uint8_t *)&hash->tail)[7] = (uint8_t)hash->bytes;
	take_word(hash, hash->tail);
	hash->v[2] ^= 0xee;
	digest[0] = finalize(hash->v);
	hash->v[1] ^= 0xdd;
	digest[1] = finalize(hash->v);
}

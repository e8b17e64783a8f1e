/* siphash.h - a keyed hash of 128 bits, byte by byte: struct siphash of compare.h. */
#ifndef JAIL_SIPHASH_H
#define JAIL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#include "compare.h"

void siphash_begin(struct siphash *hash, const uint64_t key[2]);

static inline void siphash_round(uint64_t v[4])
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

static inline void siphash_byte(struct siphash *hash, uint8_t byte)
{
	hash->tail |= (uint64_t)byte << 8 * (hash->bytes % 8);
	if (++hash->bytes % 8)
		return;
	hash->v[3] ^= hash->tail;
	siphash_round(hash->v);
	siphash_round(hash->v);
	hash->v[0] ^= hash->tail;
	hash->tail = 0;
}

/* The hash is of no use after it. */
void siphash_end(struct siphash *hash, uint64_t digest[2]);

#endif

/* siphash.h - a keyed hash of 128 bits, piece by piece: struct siphash of compare.h. */
#ifndef JAIL_SIPHASH_H
#define JAIL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#include "compare.h"

void siphash_begin(struct siphash *hash, const uint64_t key[2]);

void siphash_feed(struct siphash *hash, const uint8_t *in, size_t bytes);

/* The hash is of no use after it. */
void siphash_end(struct siphash *hash, uint64_t digest[2]);

#endif

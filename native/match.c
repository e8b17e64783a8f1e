/* match.c - two texts in canonical form, side by side, piece by piece. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compare.h"

/* How many bytes are the same. */
static size_t alike(const uint8_t *one, const uint8_t *other, size_t bytes)
{
	size_t i = 0;
	uint64_t a, b;

	for (; bytes - i >= sizeof a; i += sizeof a) {
		memcpy(&a, one + i, sizeof a);
		memcpy(&b, other + i, sizeof b);
		if (a != b)
			break;
	}
	while (i < bytes && one[i] == other[i])
		i++;
	return i;
}

static enum match_end match_text(struct match *match, const uint8_t *ours, size_t our_bytes,
				 const uint8_t *theirs, size_t their_bytes)
{
	size_t less = our_bytes < their_bytes ? our_bytes : their_bytes;
	size_t same = alike(ours, theirs, less);

	match->our_used = match->their_used = same;
	if (same < less)
		return MATCH_DIFFER;
	return same == our_bytes ? MATCH_OURS : MATCH_THEIRS;
}

/* How long the token is that begins here; `bytes` if its end has not come yet. */
static size_t token_bytes(const uint8_t *token, size_t bytes)
{
	const uint8_t *end = memchr(token, '\n', bytes);

	return end ? (size_t)(end - token) : bytes;
}

/* What is alike is done with, up to the last token that is not over; of one that is no number, that too. */
static void skip_alike(struct match *match, const uint8_t *ours, size_t same, size_t *kept)
{
	const uint8_t *end = same ? memrchr(ours, '\n', same) : NULL;
	size_t whole = end ? (size_t)(end - ours) + 1 : 0;

	if (end)
		match->within = 0;
	if (match->within || same - whole > NUMBER_BYTES_MAX) {
		match->within = 1;
		whole = same;
	}
	match->our_used += whole;
	match->their_used += whole;
	*kept = same - whole;
}

/* One pair of tokens that are not alike: done with, or not. */
static enum match_end match_token(struct match *match, const uint8_t *ours, size_t our_bytes,
				  const uint8_t *theirs, size_t their_bytes, int *done)
{
	size_t we = token_bytes(ours, our_bytes), they = token_bytes(theirs, their_bytes);

	*done = 0;
	if (match->within || we > NUMBER_BYTES_MAX || they > NUMBER_BYTES_MAX)
		return MATCH_DIFFER;
	if (they == their_bytes)
		return MATCH_THEIRS;
	if (we == our_bytes)
		return MATCH_OURS;
	if (!numbers_agree(&match->tolerance, ours, we, theirs, they))
		return MATCH_DIFFER;
	match->our_used += we + 1;
	match->their_used += they + 1;
	*done = 1;
	return MATCH_OURS;
}

static enum match_end match_numbers(struct match *match, const uint8_t *ours, size_t our_bytes,
				    const uint8_t *theirs, size_t their_bytes)
{
	enum match_end end;
	size_t less, same, kept;
	int done;

	match->our_used = match->their_used = 0;
	do {
		const uint8_t *we = ours + match->our_used, *they = theirs + match->their_used;
		size_t we_bytes = our_bytes - match->our_used;
		size_t they_bytes = their_bytes - match->their_used;

		less = we_bytes < they_bytes ? we_bytes : they_bytes;
		same = alike(we, they, less);
		skip_alike(match, we, same, &kept);
		if (same == less)
			return same == we_bytes ? MATCH_OURS : MATCH_THEIRS;
		we = ours + match->our_used;
		they = theirs + match->their_used;
		end = match_token(match, we, our_bytes - match->our_used, they,
				  their_bytes - match->their_used, &done);
	} while (done);
	return end;
}

enum match_end match_run(struct match *match, const uint8_t *ours, size_t our_bytes,
			 const uint8_t *theirs, size_t their_bytes)
{
	if (match->numbers)
		return match_numbers(match, ours, our_bytes, theirs, their_bytes);
	return match_text(match, ours, our_bytes, theirs, their_bytes);
}

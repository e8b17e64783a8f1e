/*
 * compare.h - how an output is compared with what was expected: what Python is given of canon.c,
 * decimal.c, match.c and multiset.c.
 *
 * Python reads this very text: declarations only, and no preprocessor lines. Nothing here allocates,
 * reads a file or keeps anything but in the structs; how long the two texts are does not matter.
 */

enum {
	/* Of white space that may turn out to be nothing, this much is kept as it is; a digest of more. */
	RUN_BYTES = 64,
	/* canon_feed() writes no more than it reads and this, canon_finish() no more than this. */
	CANON_SLACK = 256,
	/* A longer token is no number, whatever is in it, nor is one with a larger exponent. */
	NUMBER_BYTES_MAX = 512,
	EXPONENT_MAX = 400,
	/* The digits of any number times a tolerance, which has as many as a double, and more. */
	DIGITS_MAX = 576
};

/* SipHash-1-3 with 128 bits: Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012. */
struct siphash {
	uint64_t v[4];
	uint64_t tail;
	uint64_t bytes;
};

/* What a text is turned into, so that two texts are alike if the bytes that they become are. */
enum canon_mode {
	/* Every byte is itself. */
	CANON_EXACT,
	/* Lines without the blanks at their ends, each ended by \n; without the empty ones at the end. */
	CANON_LINES,
	/* The same without any empty line. */
	CANON_FULL_LINES,
	/* What stands between white space, each ended by \n. */
	CANON_TOKENS,
	/* Lines of tokens with one blank between two, without the empty ones. */
	CANON_WORDS
};

/*
 * A text on its way: one piece after the other through canon_feed(). Zeroed, `mode`, `fold` (A becomes
 * a) and `key` are set first; of two texts that are compared the keys are the same, and nobody knows them.
 */
struct canon {
	uint64_t key[2];
	/* What was read: bytes, newlines, and where the line began. */
	uint64_t offset, lines, line_offset;
	/* Tokens begun, and where the last of them did. */
	uint64_t tokens, token_offset, token_lines, token_line_offset;
	/* Read and not written: empty lines, where the first began, and the blanks after them. */
	uint64_t empty, empty_offset, blanks;
	struct siphash run_digest;
	uint8_t run[RUN_BYTES];
	uint8_t mode, fold;
	/* In a token, or in a line that is not empty. */
	uint8_t open;
};

/* Returns how many bytes were written to `out`, which has room for `bytes` + CANON_SLACK. */
size_t canon_feed(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out);

/* At the end of the text. */
size_t canon_finish(struct canon *canon, uint8_t *out);

/* A number without its sign: `count` digits, the last of which counts 10^low. The first is not 0. */
struct decimal {
	int32_t low, count;
	uint8_t digits[DIGITS_MAX];
};

/* How far a number may be from what was expected: by this much, or by this part of it; either suffices. */
struct tolerance {
	struct decimal absolute, relative;
};

/* Returns 0, or EINVAL if the text is not a number. Its sign goes to `negative`. */
int decimal_read(const uint8_t *text, size_t bytes, struct decimal *decimal, int *negative);

/* Whether both are numbers and the first is right if the second was expected. Exact, nothing is rounded. */
int numbers_agree(const struct tolerance *tolerance, const uint8_t *ours, size_t our_bytes,
		  const uint8_t *theirs, size_t their_bytes);

enum match_end {
	/* Nothing to be said without more of ours, or of theirs. */
	MATCH_OURS,
	MATCH_THEIRS,
	MATCH_DIFFER
};

/* Where two texts in canonical form are alike: struct match, zeroed; `numbers`: tokens are, by tolerance. */
struct match {
	struct tolerance tolerance;
	uint8_t numbers;
	/* In the middle of a token that is longer than any number. */
	uint8_t within;
	/* How many bytes of each are done with. Of what differs: up to there, or to where its token begins. */
	uint64_t our_used, their_used;
};

enum match_end match_run(struct match *match, const uint8_t *ours, size_t our_bytes,
			 const uint8_t *theirs, size_t their_bytes);

/*
 * Lines in any order: the sum of a keyed hash of each, which is MSet-Add-Hash of Clarke et al.,
 * Incremental Multiset Hash Functions, ASIACRYPT 2003. Zeroed, `key` is set first.
 */
struct multiset {
	uint64_t key[2];
	uint64_t sum[2];
	uint64_t lines;
	struct siphash line;
	uint8_t open;
};

/* Take lines in canonical form, cut anywhere. */
void multiset_feed(struct multiset *multiset, const uint8_t *in, size_t bytes);

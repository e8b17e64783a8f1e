/*
 * canon.c - texts that count as the same become the same bytes.
 *
 * White space may turn out to be nothing, at the end of a line or of the text, and that is known only
 * when it is over. Until then it is counted and its first bytes are kept; for a long run its digest
 * stands, itself written as blanks, so that what comes out has the same tokens. The key is random:
 * nobody can write a text that is taken for another.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "siphash.h"

static int is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\v' || byte == '\f';
}

/* From tab to return, and the blank. */
static int is_white(uint8_t byte)
{
	return byte == ' ' || (uint8_t)(byte - '\t') <= '\r' - '\t';
}

static uint8_t folded(const struct canon *canon, uint8_t byte)
{
	return canon->fold && byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

static void begin_line(struct canon *canon, uint64_t offset)
{
	canon->lines++;
	canon->line_offset = offset;
}

/*
 * In place of RUN_BYTES or more. It begins with a blank at the end of a line, which nothing else writes, so
 * that where it differs from something else does not depend on the key; but lines in any order must not
 * be torn in two. Two bits in each blank.
 */
static size_t write_digest(const struct canon *canon, struct siphash *hash, uint8_t *out)
{
	static const uint8_t blanks[4] = { ' ', '\t', '\v', '\f' };
	uint64_t digest[2];

	siphash_end(hash, digest);
	for (int i = 0; i < RUN_BYTES; i++)
		out[i] = blanks[digest[i / 32] >> 2 * (i % 32) & 3];
	if (canon->mode == CANON_LINES) {
		out[0] = ' ';
		out[1] = '\n';
	}
	return RUN_BYTES;
}

static size_t write_empty_lines(struct canon *canon, uint8_t *out)
{
	uint64_t count = canon->empty;
	struct siphash hash;
	size_t written;

	canon->empty = 0;
	if (canon->mode == CANON_FULL_LINES)
		return 0;
	if (count <= RUN_BYTES) {
		memset(out, '\n', count);
		return count;
	}
	siphash_begin(&hash, canon->key);
	siphash_feed(&hash, (const uint8_t *)&count, sizeof count);
	written = write_digest(canon, &hash, out);
	out[written++] = '\n';
	return written;
}

static size_t write_blanks(struct canon *canon, uint8_t *out)
{
	uint64_t count = canon->blanks;

	canon->blanks = 0;
	if (count > RUN_BYTES)
		return write_digest(canon, &canon->run_digest, out);
	memcpy(out, canon->run, count);
	return count;
}

static void keep_blank(struct canon *canon, uint8_t byte)
{
	if (canon->blanks == RUN_BYTES) {
		siphash_begin(&canon->run_digest, canon->key);
		siphash_feed(&canon->run_digest, canon->run, RUN_BYTES);
	}
	if (canon->blanks < RUN_BYTES)
		canon->run[canon->blanks] = byte;
	else
		siphash_feed(&canon->run_digest, &byte, 1);
	canon->blanks++;
}

static size_t feed_exact(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out)
{
	const uint8_t *end = in + bytes;

	if (canon->fold)
		for (size_t i = 0; i < bytes; i++)
			out[i] = folded(canon, in[i]);
	else
		memcpy(out, in, bytes);
	for (const uint8_t *at = in; (at = memchr(at, '\n', (size_t)(end - at))); at++)
		begin_line(canon, canon->offset + (uint64_t)(at - in) + 1);
	return bytes;
}

static size_t end_line(struct canon *canon, uint64_t offset, uint8_t *out)
{
	size_t written = canon->open;

	if (canon->open)
		*out = '\n';
	else if (!canon->empty++)
		canon->empty_offset = canon->line_offset;
	canon->open = 0;
	canon->blanks = 0;
	begin_line(canon, offset);
	return written;
}

static size_t feed_lines(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out)
{
	size_t written = 0;

	for (size_t i = 0; i < bytes; i++) {
		if (in[i] == '\n') {
			written += end_line(canon, canon->offset + i + 1, out + written);
			continue;
		}
		if (is_blank(in[i])) {
			keep_blank(canon, in[i]);
			continue;
		}
		if (canon->empty)
			written += write_empty_lines(canon, out + written);
		if (canon->blanks)
			written += write_blanks(canon, out + written);
		canon->open = 1;
		out[written++] = folded(canon, in[i]);
	}
	return written;
}

static void begin_token(struct canon *canon, uint64_t offset)
{
	canon->open = 1;
	canon->tokens++;
	canon->token_offset = offset;
	canon->token_lines = canon->lines;
	canon->token_line_offset = canon->line_offset;
}

/*
 * How many bytes from here on are nothing but white space, in whole blocks: without end it would take as long
 * as it is. Both sums are of a size that compilers take at once.
 */
static size_t skip_white(struct canon *canon, const uint8_t *in, size_t bytes, uint64_t offset)
{
	size_t skipped = 0;

	for (; bytes - skipped >= RUN_BYTES; skipped += RUN_BYTES) {
		const uint8_t *block = in + skipped, *last;
		uint8_t white = 0, newlines = 0;

		for (int i = 0; i < RUN_BYTES; i++) {
			white += (uint8_t)is_white(block[i]);
			newlines += block[i] == '\n';
		}
		if (white < RUN_BYTES)
			break;
		if (!newlines)
			continue;
		last = memrchr(block, '\n', RUN_BYTES);
		canon->lines += newlines;
		canon->line_offset = offset + (uint64_t)(last - in) + 1;
	}
	return skipped;
}

static size_t feed_tokens(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out)
{
	size_t written = 0;

	for (size_t i = 0; i < bytes; i++) {
		if (!is_white(in[i])) {
			if (!canon->open)
				begin_token(canon, canon->offset + i);
			out[written++] = folded(canon, in[i]);
			continue;
		}
		if (canon->open)
			out[written++] = '\n';
		canon->open = 0;
		if (in[i] == '\n')
			begin_line(canon, canon->offset + i + 1);
		if (i + 1 < bytes && is_white(in[i + 1]))
			i += skip_white(canon, in + i + 1, bytes - i - 1, canon->offset + i + 1);
	}
	return written;
}

/* `blanks` is whether there were any in the line. */
static size_t feed_words(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out)
{
	size_t written = 0;

	for (size_t i = 0; i < bytes; i++) {
		if (in[i] == '\n') {
			if (canon->open)
				out[written++] = '\n';
			canon->open = 0;
			canon->blanks = 0;
		} else if (is_blank(in[i])) {
			canon->blanks = canon->open;
		} else {
			if (canon->blanks)
				out[written++] = ' ';
			canon->blanks = 0;
			canon->open = 1;
			out[written++] = folded(canon, in[i]);
		}
	}
	return written;
}

size_t canon_feed(struct canon *canon, const uint8_t *in, size_t bytes, uint8_t *out)
{
	size_t written;

	switch (canon->mode) {
	case CANON_LINES:
	case CANON_FULL_LINES:
		written = feed_lines(canon, in, bytes, out);
		break;
	case CANON_TOKENS:
		written = feed_tokens(canon, in, bytes, out);
		break;
	case CANON_WORDS:
		written = feed_words(canon, in, bytes, out);
		break;
	default:
		written = feed_exact(canon, in, bytes, out);
	}
	canon->offset += bytes;
	return written;
}

size_t canon_finish(struct canon *canon, uint8_t *out)
{
	size_t written = canon->open;

	if (canon->open)
		*out = '\n';
	canon->open = 0;
	return written;
}

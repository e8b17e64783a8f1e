/*
 * decimal.c - numbers as they are written, compared without rounding.
 *
 * A double cannot tell 9007199254740993 from its neighbour, and 0.8 - 0.7 is more than 0.1 in doubles.
 * The numbers of texts are short: schoolbook arithmetic on their digits is as fast as reading doubles.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compare.h"

/* Where two numbers with any exponents are put side by side; one more for what is carried. */
enum { WIDTH_MAX = 2 * (NUMBER_BYTES_MAX + EXPONENT_MAX) + 1 };

static int is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

/* What comes after the e. Returns 0, or EINVAL for what is not whole or too large. */
static int read_exponent(const uint8_t *at, const uint8_t *end, int32_t *exponent)
{
	int negative = at < end && *at == '-';

	at += negative || (at < end && *at == '+');
	if (at == end)
		return EINVAL;
	for (*exponent = 0; at < end; at++) {
		if (!is_digit(*at))
			return EINVAL;
		*exponent = *exponent * 10 + (*at - '0');
		if (*exponent > EXPONENT_MAX)
			return EINVAL;
	}
	if (negative)
		*exponent = -*exponent;
	return 0;
}

static void keep_digit(struct decimal *decimal, uint8_t digit)
{
	if (decimal->count || digit)
		decimal->digits[decimal->count++] = digit;
}

int decimal_read(const uint8_t *text, size_t bytes, struct decimal *decimal, int *negative)
{
	const uint8_t *at = text, *end = text + bytes;
	int32_t exponent = 0;
	int found = 0, point = 0;

	if (!bytes || bytes > NUMBER_BYTES_MAX)
		return EINVAL;
	*negative = *at == '-';
	at += *negative || *at == '+';
	decimal->low = decimal->count = 0;
	for (; at < end && (is_digit(*at) || (*at == '.' && !point)); at++) {
		if (*at == '.') {
			point = 1;
			continue;
		}
		found = 1;
		decimal->low -= point;
		keep_digit(decimal, *at - '0');
	}
	if (!found)
		return EINVAL;
	if (at < end && (*at | 0x20) == 'e') {
		if (read_exponent(at + 1, end, &exponent))
			return EINVAL;
		at = end;
	}
	decimal->low += exponent;
	return at == end ? 0 : EINVAL;
}

/* `decimal` in a row of digits, the last of which counts 10^low. */
static void place(const struct decimal *decimal, int32_t low, uint8_t *row, int32_t width)
{
	int32_t after = decimal->count ? decimal->low - low : 0;

	memset(row, 0, (size_t)width);
	memcpy(row + width - after - decimal->count, decimal->digits, (size_t)decimal->count);
}

/* One more than the place of the first digit, or nothing at all. */
static int32_t height(const struct decimal *decimal)
{
	return decimal->count ? decimal->low + decimal->count : INT32_MIN;
}

/* The smallest row that has both in it. */
static int32_t span(const struct decimal *one, const struct decimal *other, int32_t *low)
{
	int32_t high = height(one) > height(other) ? height(one) : height(other);

	*low = one->count && (!other->count || one->low < other->low) ? one->low : other->low;
	return one->count || other->count ? high - *low : 0;
}

/* `row` becomes row + sign * other, which is not negative. */
static void combine(uint8_t *row, const uint8_t *other, int32_t width, int sign)
{
	int carry = 0;

	for (int32_t i = width; i-- > 0;) {
		int sum = row[i] + sign * other[i] + carry;

		carry = sum < 0 ? -1 : sum > 9;
		row[i] = (uint8_t)(sum - 10 * carry);
	}
}

/* How far apart, in a row of `width` digits with the lowest at 10^low. */
static void difference(const struct decimal *ours, int we_negative, const struct decimal *theirs,
		       int they_negative, uint8_t *row, int32_t *width, int32_t *low)
{
	uint8_t other[WIDTH_MAX];
	/* The sum of two may have a digit more. */
	int32_t common = span(ours, theirs, low) + 1;

	*width = common;
	place(ours, *low, row, common);
	place(theirs, *low, other, common);
	if (we_negative != they_negative) {
		combine(row, other, common, 1);
	} else if (memcmp(row, other, (size_t)common) >= 0) {
		combine(row, other, common, -1);
	} else {
		combine(other, row, common, -1);
		memcpy(row, other, (size_t)common);
	}
}

/* Whether a row is no more than `bound`. */
static int within(const uint8_t *row, int32_t width, int32_t low, const struct decimal *bound)
{
	int32_t at = 0, places, compared;

	while (at < width && !row[at])
		at++;
	if (at == width)
		return 1;
	places = width - at;
	if (low + places != height(bound))
		return low + places < height(bound);
	compared = places < bound->count ? places : bound->count;
	for (int32_t i = 0; i < compared; i++)
		if (row[at + i] != bound->digits[i])
			return row[at + i] < bound->digits[i];
	for (int32_t i = compared; i < places; i++)
		if (row[at + i])
			return 0;
	return 1;
}

/* The tolerance has as few digits as a double, so the carry fits by far. */
static void multiply(const struct decimal *number, const struct decimal *part, struct decimal *product)
{
	uint64_t factor = 0, carry = 0;
	int32_t length = 0;

	product->low = number->low + part->low;
	for (int32_t i = 0; i < part->count; i++)
		factor = factor * 10 + part->digits[i];
	for (int32_t i = number->count; i-- > 0 || carry;) {
		carry += i >= 0 ? factor * number->digits[i] : 0;
		product->digits[DIGITS_MAX - ++length] = (uint8_t)(carry % 10);
		carry /= 10;
	}
	product->count = length;
	memmove(product->digits, product->digits + DIGITS_MAX - length, (size_t)length);
}

int numbers_agree(const struct tolerance *tolerance, const uint8_t *ours, size_t our_bytes,
		  const uint8_t *theirs, size_t their_bytes)
{
	struct decimal we, they, part;
	uint8_t row[WIDTH_MAX];
	int we_negative, they_negative;
	int32_t width, low;

	if (decimal_read(ours, our_bytes, &we, &we_negative) ||
	    decimal_read(theirs, their_bytes, &they, &they_negative))
		return 0;
	difference(&we, we_negative, &they, they_negative, row, &width, &low);
	if (within(row, width, low, &tolerance->absolute))
		return 1;
	if (!tolerance->relative.count || !they.count)
		return 0;
	multiply(&they, &tolerance->relative, &part);
	return within(row, width, low, &part);
}

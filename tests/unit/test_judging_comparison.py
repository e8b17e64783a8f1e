"""Comparison against what a few lines of Python say, cut anywhere; and what it costs with endless texts."""

import base64
import itertools
import json
import os
import tracemalloc
from collections import Counter
from fractions import Fraction
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jail.judging import forms, ordered, unordered
from jail.judging.comparison import Comparison
from jail.judging.shapes import Compare, Excerpt

ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, deadline=None, max_examples=400, suppress_health_check=list(HealthCheck)
)
BLANKS = b" \t\r\v\f"
MODES = ["exact", "lines", "tokens", "numbers", "unordered_lines"]

# --- the same, naively


def lines_of(text):
    lines = [line.rstrip(BLANKS) for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def number(token):
    """As the docstring of jail.judging.comparison has it."""
    mantissa, _, exponent = token.lower().partition(b"e")
    digits = mantissa[1:] if mantissa[:1] in (b"+", b"-") else mantissa
    whole, _, part = digits.partition(b".")
    unsigned = exponent[1:] if exponent[:1] in (b"+", b"-") else exponent
    is_number = (
        len(token) <= 512
        and (whole + part).isdigit()
        and (b"e" not in token.lower() or unsigned.isdigit())
        and abs(int(exponent or b"0")) <= 400
    )
    return Fraction(token.decode()) if is_number else None


def agree(ours, theirs, compare):
    one, other = number(ours), number(theirs)
    if ours == theirs or one is None or other is None:
        return ours == theirs
    bounds = Fraction(repr(compare.absolute)), Fraction(repr(compare.relative)) * abs(other)
    return abs(one - other) <= max(bounds)


def tokens_agree(ours, theirs, compare):
    if compare.mode != "numbers":
        return ours == theirs
    return len(ours) == len(theirs) and all(agree(a, b, compare) for a, b in zip(ours, theirs, strict=True))


def what_differs(ours, theirs, compare):
    """None: nothing; else what differs at most: "white_space", "case" or "content"."""
    if not compare.case:
        ours, theirs = ours.lower(), theirs.lower()
    if compare.mode == "unordered_lines":

        def forms(text):
            full = [line for line in lines_of(text) if line]
            return Counter(full), *(
                Counter(tuple(line.split()) for line in looser)
                for looser in (full, [line.lower() for line in full])
            )

        same = [a == b for a, b in zip(forms(ours), forms(theirs), strict=True)]
        names = [None, "white_space", "case"]
        return next((name for name, is_same in zip(names, same, strict=True) if is_same), "content")
    if compare.mode == "exact" and ours == theirs:
        return None
    if compare.mode == "lines" and lines_of(ours) == lines_of(theirs):
        return None
    if tokens_agree(ours.split(), theirs.split(), compare):
        return None if compare.mode in ("tokens", "numbers") else "white_space"
    return "case" if tokens_agree(ours.lower().split(), theirs.lower().split(), compare) else "content"


def first(ours, theirs, same=lambda a, b: a == b):
    """How many elements are the same."""
    pairs = zip(ours, theirs, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if not same(a, b)), min(len(ours), len(theirs)))


def where(ours, theirs, compare):
    """Line and column of `exact` and `lines`, or the number of the token."""
    if not compare.case:
        ours, theirs = ours.lower(), theirs.lower()
    if compare.mode == "exact":
        before = ours[: first(ours, theirs)]
        return before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    if compare.mode == "lines":
        one, other = lines_of(ours), lines_of(theirs)
        line = first(one, other)
        if line == min(len(one), len(other)):
            return line + 1, 1
        return line + 1, first(one[line], other[line]) + 1
    same = (lambda a, b: agree(a, b, compare)) if compare.mode == "numbers" else (lambda a, b: a == b)
    return first(ours.split(), theirs.split(), same) + 1


# --- texts


WHITE = (
    *(b" ", b"  ", b"\n", b"\n\n", b"\t", b"\r\n", b" \n", b"\v\f"),
    *(b" " * 70, b"\t" * 69 + b" ", b"\n" * 70),
)
TEXTS = (b"a", b"A", b"b", b"ab", b"Ab", b"abc", b"\xc3\xa9", b"\xff", b"\0", b"y" * 300)
NUMBERS = (
    *(b"1", b"1.0", b"1.00000001", b"-1", b"2", b"1e2", b"100", b"1E2", b"-0", b"0"),
    *(b"1" * 600, b"1" * 100 + b"." + b"0" * 300, b"1e400", b"9" * 400),
)
NO_NUMBERS = (b"nan", b"NaN", b"0x1", b"+", b".", b"1e", b"1_0", b"1e401", b"0e999")
PIECES = st.sampled_from(WHITE + TEXTS + NUMBERS + NO_NUMBERS)


@st.composite
def texts(draw):
    """Two texts that are nearly the same: the second is the first with little changes."""
    pieces = draw(st.lists(PIECES, max_size=24))
    other = list(pieces)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(other)))
        kind = draw(st.sampled_from(["insert", "delete", "swap", "case"]))
        if kind == "insert":
            other.insert(place, draw(PIECES))
        elif kind == "swap" and place + 1 < len(other):
            other[place], other[place + 1] = other[place + 1], other[place]
        elif kind == "case":
            other[place:] = [piece.swapcase() for piece in other[place:]]
        else:
            del other[place : place + 1]
    return b"".join(pieces), b"".join(other)


COMPARES = st.builds(
    Compare,
    mode=st.sampled_from(MODES),
    absolute=st.sampled_from([0.0, 1e-8, 0.1, 1.0, 99.0]),
    relative=st.sampled_from([0.0, 1e-8, 0.5, 1.0]),
    case=st.booleans(),
)


def compared(ours, theirs, compare, cuts=()):
    comparison = Comparison(compare, theirs)
    ends = sorted({min(cut, len(ours)) for cut in cuts} | {0, len(ours)})
    for start, end in itertools.pairwise(ends):
        comparison.feed(ours[start:end])
    return comparison.finish()


@given(texts(), COMPARES, st.lists(st.integers(0, 200), max_size=6), st.sampled_from([1, 2, 7, 64, 65_536]))
@ALWAYS_THE_SAME
def test_it_says_what_a_naive_comparison_says_however_the_texts_are_cut(two, compare, cuts, piece_bytes):
    ours, theirs = two
    wanted = what_differs(ours, theirs, compare)
    with mock.patch.object(ordered, "PIECE_BYTES", piece_bytes):
        found = compared(ours, theirs, compare, cuts)
    assert (found and (found.only or "content")) == wanted
    assert found == compared(ours, theirs, compare)


@given(texts(), COMPARES.filter(lambda compare: compare.mode != "unordered_lines"))
@ALWAYS_THE_SAME
def test_the_place_is_that_of_the_first_difference(two, compare):
    ours, theirs = two
    found = compared(ours, theirs, compare)
    if found is None:
        return
    if compare.mode in ("tokens", "numbers"):
        assert found.token == where(ours, theirs, compare)
        return
    # Of more than 64 blanks in a row it is their end that is told, of more empty lines the first.
    if any(white * 65 in text for text in two for white in (b" ", b"\t", b"\n")):
        return
    assert (found.output.line, found.output.column) == where(ours, theirs, compare)
    assert (found.expected.line, found.expected.column) == where(ours, theirs, compare)


@given(texts(), COMPARES.filter(lambda compare: compare.mode != "unordered_lines"))
@ALWAYS_THE_SAME
def test_an_excerpt_is_of_the_line_around_the_place(two, compare):
    found = compared(*two, compare)
    for text, place in zip(two, (found.output, found.expected) if found else (), strict=False):
        excerpt = place.excerpt
        content = base64.b64decode(excerpt.base64) if excerpt.text is None else excerpt.text.encode()
        if not content:
            continue
        assert b"\n" not in content
        assert text[place.offset - excerpt.at :].startswith(content)
        assert len(content) <= 96


@given(texts(), COMPARES)
@ALWAYS_THE_SAME
def test_a_file_is_compared_as_bytes_are(two, compare):
    ours, theirs = two
    file = os.memfd_create("expected")
    try:
        os.write(file, theirs)
        assert compared(ours, file, compare) == compared(ours, theirs, compare)
    finally:
        os.close(file)


# --- single decisions

ALIKE = [
    ("lines", b"1\r\n2\r\n", b"1\n2\n"),
    ("lines", b"1 \n2\n\n \n", b"1\n2"),
    ("tokens", b"\n1\t2 ", b"1 2"),
    ("tokens", b"", b" \n"),
    ("unordered_lines", b"b\n\na \n", b"a\nb"),
    ("unordered_lines", b"a\na\nb", b"a\nb\na"),
    ("numbers", b"1.0", b"1"),
    ("numbers", b"+.5e1", b"5"),
    ("numbers", b"-0", b"0.000"),
    ("numbers", b"nan", b"nan"),
    ("numbers", b"1e999", b"1e999"),
    ("numbers", b"1" + b"0" * 399, b"1e399"),
]


@pytest.mark.parametrize(("mode", "ours", "theirs"), ALIKE)
def test_alike(mode, ours, theirs):
    assert compared(ours, theirs, Compare(mode=mode)) is None


UNALIKE = [
    ("exact", b"a", b"a\n", "presentation_error"),
    ("exact", b"a b", b"ab", "wrong_answer"),
    ("exact", b"", b"a", "wrong_answer"),
    ("lines", b" a", b"a", "presentation_error"),
    ("lines", b"a\n\nb", b"a\nb", "presentation_error"),
    ("lines", b"YES", b"yes", "presentation_error"),
    ("tokens", b"YES", b"yes", "presentation_error"),
    ("tokens", b"1 2", b"12", "wrong_answer"),
    ("tokens", b"\xc4", b"\xe4", "wrong_answer"),
    ("unordered_lines", b"b  c\na", b"a\nb c", "presentation_error"),
    ("unordered_lines", b"a\nb\nb", b"a\na\nb", "wrong_answer"),
    ("numbers", b"1.1", b"1", "wrong_answer"),
    ("numbers", b"NAN", b"nan", "presentation_error"),
    ("numbers", b"nan", b"1", "wrong_answer"),
    ("numbers", b"inf", b"1e400", "wrong_answer"),
    ("numbers", b"0x10", b"16", "wrong_answer"),
    ("numbers", b"1_000", b"1000", "wrong_answer"),
    ("numbers", b"1e999", b"1.0e999", "wrong_answer"),
    ("numbers", b"1e401", b"10e400", "wrong_answer"),
    ("numbers", b"-1", b"1", "wrong_answer"),
    ("lines", b"a" + b" " * 65 + b"b", b"a" + b" " * 64 + b"\tb", "presentation_error"),
    ("lines", b"a" + b"\n" * 66 + b"b", b"a" + b"\n" * 67 + b"b", "presentation_error"),
    ("numbers", b"9007199254740993", b"9007199254740992", "wrong_answer"),
    ("numbers", b"1" * 513, b"1" * 513 + b".0", "wrong_answer"),
    ("numbers", b"word", b"1", "wrong_answer"),
]


@pytest.mark.parametrize(("mode", "ours", "theirs", "status"), UNALIKE)
def test_unalike(mode, ours, theirs, status):
    assert compared(ours, theirs, Compare(mode=mode)).status == status


@pytest.mark.parametrize("mode", MODES)
def test_without_case_no_letter_differs_from_its_capital(mode):
    assert compared(b"Yes 1E2", b"yEs 1e2", Compare(mode=mode, case=False)) is None


def test_a_tolerance_holds_to_the_last_digit_and_not_one_further():
    tenth = Compare(mode="numbers", absolute=0.1)
    # In doubles the first is too far: 0.8 - 0.7 > 0.1.
    assert compared(b"0.8", b"0.7", tenth) is None
    assert compared(b"0.80000000000000000001", b"0.7", tenth) is not None


def test_either_tolerance_suffices():
    either = Compare(mode="numbers", absolute=0.5, relative=0.01)
    assert compared(b"0.4 1009", b"0 1000", either) is None
    assert compared(b"0.4 1011", b"0 1000", either).token == 2


def test_a_tolerance_that_is_no_number_is_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="is no tolerance"):
            Comparison(Compare(mode="numbers", absolute=bad), b"")


def test_the_difference_says_where_in_both_as_the_page_shows_it():
    found = compared(b"1 2\n3  4x\n", b"1 2 3\n45\n", Compare(mode="tokens"))
    page = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()
    shown = page.partition("```json\n")[2].partition("```")[0]
    assert msgspec.to_builtins(found) == json.loads(shown)


SIGNS = st.sampled_from(["", "-", "+"])
DIGITS = st.text("0159", min_size=1, max_size=6)
TOKENS = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole}{part}{exponent}".encode(),
    SIGNS,
    DIGITS,
    st.just("") | DIGITS.map(".{}".format),
    st.just("") | st.sampled_from(["e0", "e-3", "E+2", "e400", "e-400", "e401"]),
)


@given(TOKENS, TOKENS, st.sampled_from([0.0, 1e-9, 0.5, 1e5, 1e300]), st.sampled_from([0.0, 1e-9, 0.5, 2.0]))
@ALWAYS_THE_SAME
def test_numbers_agree_as_fractions_do(ours, theirs, absolute, relative):
    compare = Compare(mode="numbers", absolute=absolute, relative=relative)
    assert (compared(ours, theirs, compare) is None) == agree(ours, theirs, compare)


@given(TOKENS, st.sampled_from(["0.1", "1e-9", "3"]), SIGNS.filter(bool), st.booleans())
@ALWAYS_THE_SAME
def test_at_the_very_edge_of_the_tolerance_too(token, bound, sign, is_beyond):
    ours = number(token)
    if ours is None or b"00" in token or abs(ours) > 10**9 or 0 < abs(ours) < Fraction(1, 10**9):
        return
    edge = ours + Fraction(sign + bound) * (1 + is_beyond * Fraction(1, 10**12))
    theirs = f"{edge.numerator * 10**40 // edge.denominator}e-40".encode()
    found = compared(token, theirs, Compare(mode="numbers", absolute=float(bound)))
    assert (found is not None) == is_beyond


def test_after_a_token_longer_than_any_number_there_are_numbers_again():
    comparison = Comparison(Compare(mode="numbers"), b"1" * 600 + b" 1.0")
    for chunk in (b"1" * 600, b" 1"):
        comparison.feed(chunk)
    assert comparison.finish() is None


@pytest.mark.parametrize("mode", ["exact", "lines", "tokens", "numbers"])
def test_a_token_without_end_is_wrong_as_soon_as_it_differs(mode):
    comparison = Comparison(Compare(mode=mode), b"a" * 1_000_000)
    comparison.feed(b"b" * 65_536)
    assert comparison.over


def test_the_place_does_not_depend_on_the_key():
    pairs = ((b" " * 70 + b"x", b" y"), (b"\n" * 70 + b"x", b"\n y"), (b" " * 70 + b"x", b"\t" * 70 + b"x"))
    for two in pairs:
        found = [compared(*two, Compare(mode="lines")) for _ in range(32)]
        assert found == found[:1] * 32


@pytest.mark.parametrize(
    "white",
    [b"\n" * 65, b"\n" + b" \n" * 32, b"\n" * 200, b" \n" * 200 + b"   ", b"\n" + b" " * 300, b"\r\n" * 99],
)
def test_lines_are_counted_in_white_space_too(white):
    found = compared(b"1" + white + b"2", b"1" + white + b"3", Compare(mode="tokens"))
    for place in (found.output, found.expected):
        assert (place.line, place.column) == (white.count(b"\n") + 1, len(white.rpartition(b"\n")[2]) + 1)
        assert place.offset == 1 + len(white)


def test_an_excerpt_is_cut_between_letters():
    found = compared("é".encode() * 100 + b"a" + "é".encode() * 100, "é".encode() * 101, Compare())
    assert found.output.excerpt.text == "é" * 16 + "a" + "é" * 31
    assert found.output.excerpt.at == 32


def test_what_is_not_text_is_shown_in_base64():
    found = compared(b"a\xffb", b"a\xffc", Compare())
    assert found.output.excerpt == Excerpt(base64=base64.b64encode(b"a\xffb").decode(), at=2)


def test_of_lines_in_any_order_the_number_is_told():
    found = compared(b"a\n", b"a\nb\n", Compare(mode="unordered_lines"))
    assert (found.status, found.output) == ("wrong_answer", None)
    assert found.detail == "1 lines that are not empty; more are expected"
    found = compared(b"a\nb\n", b"a\n", Compare(mode="unordered_lines"))
    assert found.detail == "more lines that are not empty than 1, as expected"


def test_two_comparisons_hash_with_two_keys():
    sums = {
        bytes(unordered.AnyOrder(Compare(mode="unordered_lines"), None)._ours._form.saved()) for _ in range(9)
    }
    assert len(sums) == 9


def siphash(key, text, rounds, final_rounds, is_long):
    """As the paper has it; is_long: with 128 bits, as its authors' reference has those."""
    mask = (1 << 64) - 1
    v = [k ^ c for k, c in zip(key * 2, SIPHASH_BEGINS, strict=True)]
    v[1] ^= 0xEE * is_long

    def mix(times):
        def turn(n, by):
            v[n] = (v[n] << by | v[n] >> 64 - by) & mask

        def half(a, b, c, d, by, other):
            v[a], v[c] = (v[a] + v[b]) & mask, (v[c] + v[d]) & mask
            turn(b, by)
            turn(d, other)
            v[b] ^= v[a]
            v[d] ^= v[c]
            turn(a, 32)

        for _ in range(times):
            half(0, 1, 2, 3, 13, 16)
            half(2, 1, 0, 3, 17, 21)

    whole = text + bytes(7 - len(text) % 8) + bytes([len(text) % 256])
    for start in range(0, len(whole), 8):
        word = int.from_bytes(whole[start : start + 8], "little")
        v[3] ^= word
        mix(rounds)
        v[0] ^= word
    v[2] ^= 0xEE if is_long else 0xFF
    mix(final_rounds)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    mix(final_rounds)
    return first, v[0] ^ v[1] ^ v[2] ^ v[3]


SIPHASH_BEGINS = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def test_the_sum_of_lines_is_that_of_their_siphashes():
    # The example of the paper's appendix.
    key = [0x0706050403020100, 0x0F0E0D0C0B0A0908]
    assert siphash(key, bytes(range(15)), 2, 4, False)[0] == 0xA129CA6149BE45E5

    lines = [bytes(range(65, 65 + n)) for n in range(1, 20)]
    key = forms.Key()
    found = forms.Multiset(key)
    for line in lines:
        found.feed(line[:3])
        found.feed(line[3:] + b"\n")
    halves = zip(*(siphash(key.words, line, 1, 3, True) for line in lines), strict=True)
    whole = sum(low + (high << 64) for low, high in zip(*halves, strict=True)) % (1 << 128)
    assert found._state.sum[0] + (found._state.sum[1] << 64) == whole


# --- texts without end


class Endless:
    """A descriptor of a file of `size_bytes` that holds a hole; `end` is written at its end."""

    def __init__(self, size_bytes, end):
        self.file = os.memfd_create("endless")
        os.truncate(self.file, size_bytes)
        os.pwrite(self.file, end, size_bytes - len(end))

    def __enter__(self):
        return self.file

    def __exit__(self, *_):
        os.close(self.file)


GIB = 1 << 30
SIZE_BYTES = 64 << 20


@pytest.mark.parametrize("mode", MODES)
def test_one_token_that_differs_at_its_end_takes_no_memory(mode):
    chunk = bytes(1 << 16)
    with Endless(SIZE_BYTES, b"a") as file:
        comparison = Comparison(Compare(mode=mode), file)
        tracemalloc.start()
        try:
            for _ in range(SIZE_BYTES // len(chunk) - 1):
                comparison.feed(chunk)
            comparison.feed(chunk[:-1] + b"b")
            found = comparison.finish()
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found.status == "wrong_answer"
    assert peak_bytes < 1 << 20
    if mode != "unordered_lines":
        assert found.output.offset == found.expected.offset == SIZE_BYTES - 1


@pytest.mark.parametrize("mode", ["lines", "tokens", "unordered_lines"])
@pytest.mark.parametrize("white", [b" ", b"\n", b" \t\n", b"\r\n"])
def test_white_space_without_end_is_nothing(mode, white):
    comparison = Comparison(Compare(mode=mode), b"a\nb")
    comparison.feed(b"a\nb")
    for _ in range(64):
        comparison.feed(white * (65_536 // len(white)))
    assert comparison.finish() is None


def test_white_space_without_end_is_something_within_a_line():
    inner = (b" \t" * 32_768, b"\t " * 32_768)
    for ours, only in ((inner[0], None), (inner[1], "white_space")):
        comparison = Comparison(Compare(mode="lines"), b"a" + inner[0] + b"b")
        comparison.feed(b"a" + ours + b"b")
        found = comparison.finish()
        assert (found and found.only) == only


def test_expected_without_end_and_no_output_is_decided_at_once():
    for mode in MODES[:-1]:
        with Endless(GIB, b"a") as file, mock.patch.object(os, "pread", wraps=os.pread) as read:
            assert compared(b"b\nb", file, Compare(mode=mode)).status == "wrong_answer"
        assert read.call_count < 8


def test_output_that_is_wrong_already_costs_nothing_more():
    comparison = Comparison(Compare(mode="tokens"), b"b")
    comparison.feed(b"a" * 100)
    assert comparison.over
    with mock.patch.object(comparison._way._ours, "feed", side_effect=AssertionError):
        comparison.feed(b"more")
    assert comparison.finish().output.offset == 0

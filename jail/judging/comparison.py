"""What was expected against what a program writes, compared as it comes, in bounded memory.

    comparison = Comparison(Compare(mode="tokens"), expected)    # bytes, or an open descriptor of a file
    comparison.feed(chunk)                                       # as often as the program writes
    difference = comparison.finish()                             # None: it is right

White space is what C's isspace() knows: blank, tab, newline, return, vertical tab, form feed. Case is that of
ASCII letters. Whatever the texts are, nothing but bytes counts: no encoding, no locale.

exact: every byte. lines: all but blanks at the ends of lines and empty lines at the end of the text. tokens:
what stands between white space. numbers: the same, and a token that is a number is right within a tolerance.
unordered_lines: lines without blanks at their ends, in any order, and without the empty ones.

A number is [+-]digits[.digits][e[+-]digits], or begins with its point; it has at most 512 characters and an
exponent of at most 400. It is right if its difference from what was expected, computed exactly, is at most
`absolute`, or at most `relative` times what was expected. With neither, 1.0 is 1. All other tokens are text
and have to be the same: nan, inf, 0x10, 1_000, 1e999, and a number where a word was expected.

presentation_error is what is right but for white space or case. `exact`, `lines`: the same tokens, perhaps in
another case. `tokens`, `numbers`: in another case. `unordered_lines`: the same once every line is its tokens,
perhaps in another case. With case=False no case is another; `tokens` and `numbers` have none at all then.

Time: every byte is read once, and again where it is found to differ; a call takes as long as its chunk. But
white space of what is expected is read up to the next token, however much it is (0.3 s a GiB), and finish()
may have to read the rest of what is expected, of lines in any order. Large files it had better read in a
thread: most of it is done without the interpreter's lock.
Memory: about 1 MiB, whatever the texts are.
"""

from jail.judging.expected import Expected
from jail.judging.forms import PIECE_BYTES
from jail.judging.ordered import InOrder
from jail.judging.shapes import Compare, Difference
from jail.judging.unordered import AnyOrder


class Comparison:
    """One output on its way past what was expected. The answer is the same however the output is cut."""

    def __init__(self, compare: Compare, expected: bytes | int) -> None:
        """Compare with `expected`: bytes, or the descriptor of a file, which stays the caller's.

        Raises ValueError if a tolerance is not finite.
        """
        kind = AnyOrder if compare.mode == "unordered_lines" else InOrder
        self._way = kind(compare, Expected(expected))

    @property
    def over(self) -> bool:
        """Whether whatever else comes makes no difference: feed() does nothing any more."""
        return self._way.over

    def feed(self, chunk: bytes) -> None:
        """Take what the program wrote next. Raises OSError if `expected` cannot be read."""
        for start in range(0, len(chunk), PIECE_BYTES):
            self._way.feed(chunk[start : start + PIECE_BYTES])

    def finish(self) -> Difference | None:
        """The first difference, once all was fed. Raises OSError if `expected` cannot be read."""
        return self._way.finish()

"""What was expected against what a program writes, compared as it comes, in bounded memory.

    comparison = Comparison(Compare(mode="tokens"), expected)    # bytes, or an open descriptor of a file
    comparison.feed(chunk)                                       # as often as the program writes
    difference = comparison.finish()                             # None: it is right
"""

from jail.judging.shapes import Compare, Difference


class Comparison:
    """One output on its way past what was expected. The answer is the same however the output is cut.

    `over`: it is wrong already whatever comes, and feed() does nothing more but count.
    """

    over: bool

    def __init__(self, compare: Compare, expected: bytes | int) -> None:
        """Compare with `expected`: bytes, or the descriptor of a file, read by pread(2); it stays the caller's."""

    def feed(self, chunk: bytes) -> None:
        """Take what the program wrote next. Raises OSError if `expected` cannot be read."""

    def finish(self) -> Difference | None:
        """The first difference, after all was fed. Raises OSError if `expected` cannot be read."""

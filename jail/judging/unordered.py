"""Lines in any order: what two texts have in common is a sum, so nothing is said of where they differ.

A line is what it is without the blanks at its end; empty ones do not count. Each is hashed with a key that
was drawn for this comparison, and the hashes are added up: two texts with other lines have the same sum
once in 2**98 or more, whatever a program writes that does not know the key.
"""

from jail.judging import forms
from jail.judging.expected import Expected
from jail.judging.forms import PIECE_BYTES, Form, Key, Multiset
from jail.judging.shapes import Compare, Difference


class _Side:
    """One of the texts: its lines, and in looser forms what its lines become."""

    def __init__(self, fold: bool, key: Key) -> None:
        self._lines = Form(forms.FULL_LINES, fold, key)
        self._words = [Form(forms.WORDS, loose, key) for loose in ((True,) if fold else (False, True))]
        self.sums = [Multiset(key) for _ in range(1 + len(self._words))]
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._add(self._lines.feed(piece))

    def finish(self) -> None:
        """Take the end."""
        self.ended = True
        self._add(self._lines.finish())

    def _add(self, lines: bytes) -> None:
        self.sums[0].feed(lines)
        for words, total in zip(self._words, self.sums[1:], strict=True):
            total.feed(words.feed(lines))


class AnyOrder:
    """One output on its way."""

    def __init__(self, compare: Compare, expected: Expected) -> None:
        """Nothing was fed yet."""
        key = Key()
        self._expected = expected
        self._ours, self._theirs = (_Side(not compare.case, key) for _ in range(2))

    @property
    def over(self) -> bool:
        """Whether there are already more lines than expected."""
        return self._theirs.ended and self._ours.sums[0].lines > self._theirs.sums[0].lines

    def feed(self, piece: bytes) -> None:
        """Take at most PIECE_BYTES of the output. Raises OSError."""
        if self.over:
            return
        self._ours.feed(piece)
        # As much of what is expected: then little is left to be read in the end.
        self._pull(len(piece))

    def finish(self) -> Difference | None:
        """The difference, if there is one. Raises OSError."""
        self._ours.finish()
        written = self._ours.sums[0].lines
        while not self._theirs.ended and self._theirs.sums[0].lines <= written:
            self._pull(PIECE_BYTES)
        expected = self._theirs.sums[0].lines
        if expected != written:
            how_many = f"{expected}" if self._theirs.ended else f"more than {written}"
            lines = "more" if self.over else f"{written}"
            return Difference(only=None, detail=f"{lines} lines that are not empty; expected: {how_many}")
        same = [ours.same(theirs) for ours, theirs in zip(self._ours.sums, self._theirs.sums, strict=True)]
        if same[0]:
            return None
        only = "white_space" if same[1] else "case" if same[-1] else None
        return Difference(only=only, detail="as many lines as expected, and not all of them the same")

    def _pull(self, count: int) -> None:
        if self._theirs.ended:
            return
        piece = self._expected.read(count)
        if piece:
            self._theirs.feed(piece)
        else:
            self._theirs.finish()

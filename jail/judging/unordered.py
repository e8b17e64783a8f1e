"""Lines in any order: what two texts have in common is a sum, so nothing is said of where they differ.

A line is what it is without the blanks at its end; empty ones do not count. Each is hashed with a key that
was drawn for this comparison, and the hashes are added up: two texts with other lines have the same sum
once in 2**98 or more, whatever a program writes that does not know the key.
"""

from jail.judging import forms
from jail.judging.expected import Expected
from jail.judging.forms import PIECE_BYTES, Form, Key, Multiset
from jail.judging.shapes import Compare, Difference


class _Loose:
    """The lines of a text in a looser form, added up; most often they are what they were."""

    def __init__(self, fold: bool, key: Key) -> None:
        self._form = Form(forms.WORDS, fold, key)
        self._sum: Multiset | None = None

    def before(self, lines: bytes, strict: Multiset) -> None:
        """Take lines that `strict` is about to take."""
        made = self._form.feed(lines)
        if self._sum is None:
            if made == lines:
                return
            self._sum = strict.copy()
        self._sum.feed(made)

    def sum(self, strict: Multiset) -> Multiset:
        """The sum of all that both took."""
        return self._sum or strict


class _Side:
    """One of the texts: its lines, and what they become in looser forms."""

    def __init__(self, fold: bool, key: Key) -> None:
        self._form = Form(forms.FULL_LINES, fold, key)
        self._loose = [_Loose(loose, key) for loose in ((True,) if fold else (False, True))]
        self._strict = Multiset(key)
        self.ended = False

    @property
    def lines(self) -> int:
        """How many have ended."""
        return self._strict.lines

    @property
    def sums(self) -> list[Multiset]:
        """From the strict one to the loosest."""
        return [self._strict, *(loose.sum(self._strict) for loose in self._loose)]

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._add(self._form.feed(piece))

    def finish(self) -> None:
        """Take the end."""
        self.ended = True
        self._add(self._form.finish())

    def _add(self, lines: bytes) -> None:
        for loose in self._loose:
            loose.before(lines, self._strict)
        self._strict.feed(lines)


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
        return self._theirs.ended and self._ours.lines > self._theirs.lines

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
        written = self._ours.lines
        while not self._theirs.ended and self._theirs.lines <= written:
            self._pull(PIECE_BYTES)
        expected = self._theirs.lines
        if expected > written:
            return Difference(only=None, detail=f"{written} lines that are not empty; more are expected")
        if expected < written:
            return Difference(only=None, detail=f"more lines that are not empty than {expected}, as expected")
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

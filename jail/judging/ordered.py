"""Two texts that have to be the same from beginning to end, in one form or, failing that, in a looser one.

Each is a side: its pieces go through a form, and what they become is matched byte for byte, or token by token
where numbers have a tolerance. The output is pushed, what is expected is pulled. Where the two part, the
place is noted, and both go on from there in a looser form on top of the first; when none is left, the output
is wrong. What is alike in one form is alike in every looser one, so nothing is read twice.
"""

from jail.judging import forms, places
from jail.judging.expected import Expected
from jail.judging.forms import PIECE_BYTES, Form, Key, Match
from jail.judging.places import Around, Spot
from jail.judging.shapes import Compare, Difference

# A token of a number may have begun in an earlier piece.
_RECENT_BYTES = forms.NUMBER_BYTES_MAX + places.BEFORE_BYTES + forms.RUN_BYTES

_FORMS = {"exact": forms.EXACT, "lines": forms.LINES, "tokens": forms.TOKENS, "numbers": forms.TOKENS}

_WHITE = b" \t\n\r\v\f"


class _Side:
    """One of the texts. `left`: what it became and was not found alike yet. `ended`: there is no more."""

    def __init__(self, form: Form) -> None:
        self._forms = [form]
        self.left = b""
        self.ended = False
        self._piece = self._recent = b""
        self._before = form.saved()
        self._made = 0
        self._was_open = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._remember(piece)
        for form in self._forms:
            piece = form.feed(piece)
        self._take(piece)

    def follow(self, other: "_Side", piece: bytes) -> None:
        """Take a piece that the other has just taken, from where this one stands, too."""
        self._remember(piece)
        self._forms[0].restore(other._forms[0].saved())
        self._take(other.left[len(other.left) - other._made :])

    def finish(self) -> None:
        """Take the end."""
        self.ended = True
        self._was_open = bool(self._forms[0].state.open)
        made = b""
        for form in self._forms:
            made = form.feed(made) + form.finish()
        self.left += made
        self._made += len(made)

    def use(self, count: int) -> None:
        """Done with what is alike."""
        if count:
            self.left = self.left[count:]

    def loosen(self, form: Form) -> None:
        """Go on in one more form, with what is left."""
        self._forms.append(form)
        self.left = form.feed(self.left)
        if self.ended:
            self.left += form.finish()

    def spot(self) -> Spot:
        """Where it is that the two stop being alike. Before it is loosened."""
        if self.ended and not self.left:
            return places.spot_at_end(self._forms[0], self._was_open)
        now = self._forms[0].saved()
        self._forms[0].restore(self._before)
        index = self._made - len(self.left)
        if index < 0:
            found = places.spot_of_token(self._forms[0].state)
        else:
            found = places.spot_in(self._forms[0], self._piece, index)
        self._forms[0].restore(now)
        return found

    def around(self, spot: Spot) -> Around:
        """What is known around that place."""
        known = self._recent + self._piece
        at = len(known) - (self._forms[0].state.offset - spot.offset)
        found = Around(spot, known[:at] if at > 0 else b"")
        found.feed(known[max(at, 0) :])
        return found

    def _remember(self, piece: bytes) -> None:
        self._recent = (self._recent + self._piece)[-_RECENT_BYTES:]
        self._piece = piece
        self._before = self._forms[0].saved()

    def _take(self, made: bytes) -> None:
        self._made = len(made)
        self.left += made


class InOrder:
    """One output on its way. `over`: nothing that comes can make it right, or say more of it."""

    def __init__(self, compare: Compare, expected: Expected) -> None:
        """Nothing was fed yet."""
        self._key = Key()
        self._expected = expected
        self._stages = _stages(compare)
        form, fold, self._only = self._stages.pop(0)
        self._ours, self._theirs = (_Side(Form(form, fold, self._key)) for _ in range(2))
        self._match = Match((compare.absolute, compare.relative) if compare.mode == "numbers" else None)
        self._by_tokens = form == forms.TOKENS
        # Byte by byte the same so far: then what the one became is what the other does.
        self._in_step = True
        self._last = b"\n"
        self._is_wrong = False
        self._found: tuple[Around, Around, int] | None = None

    @property
    def over(self) -> bool:
        """Whether what comes does not count."""
        return self._is_wrong and self._found is not None and self._found[0].whole

    def feed(self, piece: bytes) -> None:
        """Take at most PIECE_BYTES of the output. Raises OSError."""
        if self._found is not None:
            self._found[0].feed(piece)
        if self._is_wrong:
            return
        self._ours.feed(piece)
        if self._in_step:
            self._step(piece)
        self._run()

    def finish(self) -> Difference | None:
        """The difference, if there is one. Raises OSError."""
        if not self._is_wrong:
            self._ours.finish()
            self._run()
        if self._found is None:
            return None
        ours, theirs, token = self._found
        return Difference(
            only=None if self._is_wrong else self._only,
            token=token if self._by_tokens else None,
            output=ours.place(),
            expected=theirs.place(),
        )

    def _step(self, piece: bytes) -> None:
        other = self._expected.read(len(piece))
        if other == piece:
            self._theirs.follow(self._ours, piece)
        else:
            self._in_step = False
            self._theirs.feed(other)

    def _run(self) -> None:
        """Go as far as the output goes."""
        while not self._is_wrong:
            end, ours, theirs = self._match.run(self._ours.left, self._theirs.left)
            if ours:
                self._last = self._ours.left[ours - 1 : ours]
            self._ours.use(ours)
            self._theirs.use(theirs)
            if end == forms.MATCH_OURS and not self._ours.ended:
                return
            if end == forms.MATCH_DIFFER or (self._theirs.left and end == forms.MATCH_OURS):
                self._differ()
            elif not self._theirs.ended:
                self._pull()
            elif self._ours.left:
                self._differ()
            else:
                return

    def _pull(self) -> None:
        piece = self._expected.read(PIECE_BYTES)
        if piece:
            self._theirs.feed(piece)
        else:
            self._theirs.finish()

    def _differ(self) -> None:
        """Note where, and go on in a looser form, if there is one."""
        if self._found is None:
            self._found = self._note()
        if not self._stages:
            self._is_wrong = True
            return
        form, fold, self._only = self._stages.pop(0)
        is_open = self._last not in _WHITE
        for side in (self._ours, self._theirs):
            side.loosen(Form(form, fold, self._key, is_open))
        self._in_step = False

    def _note(self) -> tuple[Around, Around, int]:
        ours, theirs = self._ours.spot(), self._theirs.spot()
        before = min(theirs.column - 1, places.BEFORE_BYTES, theirs.offset)
        text = self._expected.at(theirs.offset - before, before + places.AFTER_BYTES)
        around = Around(theirs, text[:before])
        around.feed(text[before:])
        return self._ours.around(ours), around, ours.token


def _stages(compare: Compare) -> list[tuple[int, bool, str | None]]:
    """The forms, each looser than the one before: mode, whether case is folded, what then differs at most."""
    stages = [(_FORMS[compare.mode], not compare.case, None)]
    if stages[0][0] != forms.TOKENS:
        stages.append((forms.TOKENS, not compare.case, "white_space"))
    if compare.case:
        stages.append((forms.TOKENS, True, "case"))
    return stages

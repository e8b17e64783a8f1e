"""Where in a text something is: found again in the piece that it came with, and shown with its line."""

import base64
import codecs
from bisect import bisect_right

import msgspec

from jail.judging import forms
from jail.judging.forms import Form
from jail.judging.shapes import Excerpt, Place

BEFORE_BYTES = 32
AFTER_BYTES = 64
"""How much of the line is shown around a place."""


class Spot(msgspec.Struct, frozen=True):
    """A place, and how many tokens began before or at it. `is_blank`: its line has nothing in it."""

    offset: int
    line: int
    column: int
    token: int
    is_blank: bool = False


def spot_in(form: Form, piece: bytes, index: int) -> Spot:
    """The place in the text of what became byte `index` of what `piece` became.

    form: stands where it stood before the piece, and is left there.
    """
    before = form.saved()

    def written(count: int) -> int:
        form.restore(before)
        return len(form.feed(piece[:count]))

    # The last count of bytes that does not become more than `index`: the next one became that byte.
    count = bisect_right(range(1, len(piece) + 1), index, key=written)
    ahead = index - written(count)
    found = _spot(form.state, ahead)
    form.restore(before)
    return found


def spot_of_token(state: object) -> Spot:
    """Where the last token began."""
    column = state.token_offset - state.token_line_offset + 1
    return Spot(state.token_offset, state.token_lines + 1, column, state.tokens)


def spot_at_end(form: Form, is_unended: bool) -> Spot:
    """The place after all of a text; is_unended: its last line had no end of its own."""
    state = form.state
    if state.mode != forms.LINES:
        return _spot(state, 0)
    if state.empty or not is_unended:
        return _spot(state, 0)
    # What is missing is missing in the line after it.
    return Spot(state.offset, state.lines + 2, 1, 0, is_blank=True)


def _spot(state: object, ahead: int) -> Spot:
    """The place of what comes next, `ahead` bytes into what that becomes.

    For long runs a digest stands: of blanks their end is told, of empty lines the first.
    """
    token = state.tokens + (not state.open)
    if state.mode == forms.LINES:
        empty = state.empty if state.empty <= forms.RUN_BYTES else forms.RUN_BYTES + 1
        if state.empty and ahead < empty:
            line = state.lines - state.empty + 1 + (ahead if empty == state.empty else 0)
            return Spot(state.empty_offset, line, 1, token, is_blank=True)
        if 0 < state.blanks <= forms.RUN_BYTES:
            offset = state.offset - state.blanks + min(ahead - empty, state.blanks)
            return Spot(offset, state.lines + 1, offset - state.line_offset + 1, token)
    return Spot(state.offset, state.lines + 1, state.offset - state.line_offset + 1, token)


class Around:
    """The bytes around a place, until its line is over or enough is known. `whole`: it is."""

    def __init__(self, spot: Spot, before: bytes) -> None:
        """before: what is known of the text in front of the place."""
        self._spot = spot
        self._known = min(spot.column - 1, len(before), BEFORE_BYTES)
        self._before = before[len(before) - self._known :]
        self._after = b""
        self.whole = spot.is_blank

    def feed(self, text: bytes) -> None:
        """Take what comes next."""
        if self.whole:
            return
        self._after, end, _ = (self._after + text[:AFTER_BYTES])[:AFTER_BYTES].partition(b"\n")
        self.whole = bool(end) or len(self._after) == AFTER_BYTES

    def place(self) -> Place:
        """The place, and what is known around it."""
        spot = self._spot
        is_cut = self._known < spot.column - 1
        return Place(
            offset=spot.offset,
            line=spot.line,
            column=spot.column,
            excerpt=_excerpt(self._before, self._after, is_cut),
        )


def _excerpt(before: bytes, after: bytes, is_cut: bool) -> Excerpt:
    skipped = _continuation(before) if is_cut else 0
    content, at = before[skipped:] + after, len(before) - skipped
    try:
        # What is cut off in the middle of a character is left out.
        text = codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return Excerpt(base64=base64.b64encode(before + after).decode(), at=len(before))
    return Excerpt(text=text, at=at)


def _continuation(text: bytes) -> int:
    """How many bytes at the beginning belong to a character that began before."""
    count = 0
    while count < min(3, len(text)) and text[count] & 0xC0 == 0x80:
        count += 1
    return count

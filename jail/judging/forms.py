"""The door to native/compare.h: texts in a form in which those that count as the same are the same bytes."""

import secrets

from jail._protocol import ffi, lib

EXACT, LINES, FULL_LINES = lib.CANON_EXACT, lib.CANON_LINES, lib.CANON_FULL_LINES
TOKENS, WORDS = lib.CANON_TOKENS, lib.CANON_WORDS
MATCH_OURS, MATCH_THEIRS, MATCH_DIFFER = lib.MATCH_OURS, lib.MATCH_THEIRS, lib.MATCH_DIFFER
NUMBER_BYTES_MAX = lib.NUMBER_BYTES_MAX
RUN_BYTES = lib.RUN_BYTES

PIECE_BYTES = 65_536
"""How much of a text goes through a form at once."""

# What comes out of one form goes through another: each may add as much.
_ROOM_BYTES = PIECE_BYTES + 8 * lib.CANON_SLACK + NUMBER_BYTES_MAX


class Key:
    """What the forms and sums of one comparison share, so that they can be compared and nobody can aim."""

    def __init__(self) -> None:
        """Draw the key, which never leaves this process."""
        self.words = [secrets.randbits(64), secrets.randbits(64)]
        self.room = ffi.new("uint8_t[]", _ROOM_BYTES)


class Form:
    """One text on its way into a form. `state`: struct canon."""

    def __init__(self, mode: int, fold: bool, key: Key, is_open: bool = False) -> None:
        """Nothing was read yet; is_open: what comes goes on with a token that began before."""
        self._room = key.room
        fields = {"mode": mode, "fold": fold, "key": key.words, "open": is_open}
        self.state = ffi.new("struct canon *", fields)

    def feed(self, text: bytes) -> bytes:
        """What the next piece of the text becomes: PIECE_BYTES, or what those became in another form."""
        if len(text) + lib.CANON_SLACK > _ROOM_BYTES:
            raise ValueError(f"{len(text)} bytes do not fit; a piece is {PIECE_BYTES}")
        return self._made(lib.canon_feed(self.state, text, len(text), self._room))

    def finish(self) -> bytes:
        """What the end of the text becomes."""
        return self._made(lib.canon_finish(self.state, self._room))

    def saved(self) -> bytes:
        """Where it stands, for restore()."""
        return bytes(ffi.buffer(self.state))

    def restore(self, saved: bytes) -> None:
        """Stand there again."""
        ffi.memmove(self.state, saved, len(saved))

    def _made(self, count: int) -> bytes:
        return ffi.buffer(self._room, count)[:]


class Match:
    """Two texts in one form, side by side."""

    def __init__(self, tolerance: tuple[float, float] | None) -> None:
        """tolerance: absolute and relative, of numbers; None: all tokens are text."""
        self._state = ffi.new("struct match *")
        if tolerance is not None:
            self._state.numbers = 1
            for number, bound in zip(tolerance, ("absolute", "relative"), strict=True):
                _read(number, getattr(self._state.tolerance, bound))

    def run(self, ours: bytes, theirs: bytes) -> tuple[int, int, int]:
        """Why it stopped, and how many bytes of each are done with."""
        end = lib.match_run(self._state, ours, len(ours), theirs, len(theirs))
        return end, self._state.our_used, self._state.their_used


class Multiset:
    """Lines in any order."""

    def __init__(self, key: Key) -> None:
        """No lines yet."""
        self._state = ffi.new("struct multiset *", {"key": key.words})

    @property
    def lines(self) -> int:
        """How many have ended."""
        return self._state.lines

    def feed(self, lines: bytes) -> None:
        """Take lines in their form, cut anywhere."""
        lib.multiset_feed(self._state, lines, len(lines))

    def copy(self) -> "Multiset":
        """Another that had the same."""
        made = Multiset.__new__(Multiset)
        made._state = ffi.new("struct multiset *", self._state[0])
        return made

    def same(self, other: "Multiset") -> bool:
        """Whether both had the same lines."""
        mine, its = self._state, other._state
        return (mine.lines, *mine.sum) == (its.lines, *its.sum)


def _read(number: float, decimal: object) -> None:
    text = repr(float(number)).encode()
    if lib.decimal_read(text, len(text), ffi.addressof(decimal), ffi.new("int *")):
        raise ValueError(f"{number} is no tolerance: it is not finite, or smaller than 1e-400")

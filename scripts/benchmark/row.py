"""One row of the table: a figure, what it is compared with, and what is aimed at."""

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`value` in `unit`; `ratio` of it `to` something; the aim is one of the ratio if there is one.

    None of them: nothing could be measured, and the note says why.
    """

    name: str
    value: float | None = None
    unit: str = "ms"
    ratio: float | None = None
    to: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        figure = self.value if self.ratio is None else self.ratio
        if figure is None:
            return None
        if self.at_most is not None:
            return figure <= self.at_most
        if self.at_least is not None:
            return figure >= self.at_least
        return None

    @property
    def aim(self) -> str:
        """The aim in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"


def number(value: float) -> str:
    """Three digits that count, and no more than two after the point."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def multiple(ratio: float | None) -> str:
    """A ratio; near 1 a hundredth may be the matter."""
    if ratio is None:
        return ""
    return f"{ratio:.3f}" if 0.9 < ratio < 1.1 and ratio != 1 else number(ratio)

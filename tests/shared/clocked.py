"""Event loops for tests of what depends on time."""

import asyncio


class Loop(asyncio.SelectorEventLoop):
    """Its clock goes on when it is told to."""

    now = 0.0

    def time(self):
        """As it was told."""
        return self.now

"""What the hub waits for: descriptors, and what is called when there is something to be had of them."""

import select
from collections.abc import Callable


class Watch:
    """The descriptors that are watched now."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.poll()
        self._called: dict[int, Callable[[], None]] = {}

    def add(self, descriptor: int, events: int, called: Callable[[], None]) -> None:
        """Have `called` called whenever one of these events of poll(2) is there."""
        self._poll.register(descriptor, events)
        self._called[descriptor] = called

    def remove(self, descriptor: int) -> None:
        """Leave it alone from now on; to be done before it is closed."""
        self._poll.unregister(descriptor)
        del self._called[descriptor]

    def wait(self, patience_ms: int | None) -> bool:
        """Wait, for ever if that is None, and call for all that are ready; whether any was."""
        ready = [(descriptor, self._called[descriptor]) for descriptor, _ in self._poll.poll(patience_ms)]
        for descriptor, called in ready:
            # One before it may have removed it, and even have added another that has its number now.
            if self._called.get(descriptor) is called:
                called()
        return bool(ready)

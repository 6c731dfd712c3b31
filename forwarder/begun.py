"""How far does a coroutine get without waiting? What needs no wait then needs no time limit either, and no task.

Most of what is asked of a cache or of memory is answered there. Its ``await`` costs a frame, but a limit around it costs a timer
of the event loop, set and cancelled each time.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Begun", "begin"]


def begin(steps: Coroutine[Any, Any, None]) -> Begun | None:
    """Run ``steps`` up to where they wait for the first time, within the task of who calls. ``None``: they came to their end;
    otherwise the rest, which must be awaited by the same task and right away. Raises what they raise."""
    try:
        return Begun(steps, steps.send(None))
    except StopIteration:
        return None


class Begun:
    """The rest of a coroutine. To be awaited once."""

    __slots__ = ("_steps", "_waits")

    def __init__(self, steps: Coroutine[Any, Any, None], waits: Any) -> None:
        self._steps = steps
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            try:
                sent = yield self._waits
            except GeneratorExit:
                self._steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - a cancellation too, which the coroutine takes in its own way
                failure: BaseException | None = error
            else:
                failure = None
            try:
                self._waits = self._steps.send(sent) if failure is None else self._steps.throw(failure)
            except StopIteration:
                return

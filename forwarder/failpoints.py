"""Where may the program be made to fail on purpose? Named points on a message's way, for tests of what a crash leaves behind.

    FORWARDER_FAILPOINT=K5:kill            the first time that this point is reached the process ends as by kill -9
    FORWARDER_FAILPOINT=K5:3:kill          the third time
    FORWARDER_FAILPOINT=K5:raise,K9:raise  an exception there, as from a fault of ours; each once

docs/reliability.md says for each point what is left, what the sender hears and what must not happen. Unarmed, which is always
but in tests, a point costs one look at a module's name. It writes nothing to the log: a kill leaves no time for that.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

__all__ = ["POINTS", "FailpointReached", "arm", "reach"]

#: What has just happened, in the order of a message's way.
POINTS = {
    "K1": "the sender's final dot was read",
    "K2": "the message is verified, nothing is claimed",
    "K3": "claimed, nothing is sent",
    "K4": "the next hop is ready, the message is not sent",
    "K5": "the next hop has answered the final dot, nobody has looked at it",
    "K6": "the answer was read, it is not on record",
    "K7": "it is on record, the sender was not answered",
    "K8": "what has to wait is not yet in the queue",
    "K9": "it is in the queue, the sender was not answered",
    "K10": "claimed from the queue, nothing is sent",
    "K11": "the final dot is marked and not sent",
    "K12": "what the queue sent was answered, it is not on record",
    "K13": "a report is written, it is neither sent nor queued",
    "K14": "the embedded store is starting and does not answer yet",
}
_ACTIONS = ("kill", "raise")


class FailpointReached(Exception):
    """A fault of ours, on purpose."""


@dataclass(slots=True)
class _Armed:
    action: str
    left: int


_armed: dict[str, _Armed] = {}


def arm(text: str) -> None:
    """What the variable says; ``""``: nothing. Raises ValueError with a sentence."""
    armed = {}
    for one in filter(None, text.split(",")):
        point, action, times = _parse(one)
        armed[point] = _Armed(action, times)
    _armed.clear()
    _armed.update(armed)


def reach(point: str) -> None:
    """We are there. Raises FailpointReached, or does not return, when that was asked for."""
    if _armed:
        _fail(point)


def _parse(text: str) -> tuple[str, str, int]:
    match text.strip().split(":"):
        case [point, action]:
            times = "1"
        case [point, times, action]:
            pass
        case _:
            point = action = times = ""
    if point not in POINTS or action not in _ACTIONS or not times.isdecimal() or not 0 < int(times) < 1_000_000:
        raise ValueError(f"{text!r} is no POINT:ACTION or POINT:TIMES:ACTION, as in K5:kill or K5:3:raise (K1 to K14)")
    return point, action, int(times)


def _fail(point: str) -> None:
    here = _armed.get(point)
    if here is None:
        return
    here.left -= 1
    if here.left > 0:
        return
    del _armed[point]
    if here.action == "kill":
        # Not to be caught, and nothing is flushed: what a crash or the kernel's out-of-memory killer does.
        os.kill(os.getpid(), signal.SIGKILL)
    raise FailpointReached(point)

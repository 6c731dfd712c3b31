"""How is a child made? By fork, so that it has all that its parent has read and imported, and shares the memory of it.

That is sound because the parent has no thread and no event loop. The child leaves by ``os._exit``: nothing of its parent's is
tidied up twice.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

__all__ = ["fork", "how_it_ended"]

#: What the parent hears. A child is told by its channel: a terminal tells all of them at once.
_PARENTS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def fork(run: Callable[[], int], leave: Callable[[], None], deaf_to: Iterable[signal.Signals]) -> int:
    """The pid of a child that ends with what ``run`` returns; ``leave`` closes there what is its parent's. Raises OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Until the child has none of its parent's handlers left.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(run, leave, set(deaf_to), before))
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child(
    run: Callable[[], int],
    leave: Callable[[], None],
    deaf_to: set[signal.Signals],
    mask: set[signal.Signals] | set[int],
) -> int:
    try:
        signal.set_wakeup_fd(-1)
        for number in _PARENTS:
            signal.signal(number, signal.SIG_IGN if number in deaf_to else signal.SIG_DFL)
        leave()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return run()
    except BaseException:  # noqa: BLE001 - what is above in the stack is the parent's
        with suppress(Exception):
            traceback.print_exc()
        return 1
    finally:
        with suppress(Exception):
            sys.stderr.flush()


def how_it_ended(status: int) -> int:
    """The exit code, or the signal as a negative number, of what ``os.waitpid`` says."""
    return os.waitstatus_to_exitcode(status)

"""How many octets of messages are in memory? One count for all sessions of a process.

Over the budget a client hears 452 4.3.1 and comes back later; nobody is made to wait for somebody else's message.
"""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """``most`` comes with each question: after a reload sessions with the old limit and with the new one share the count."""

    def __init__(self) -> None:
        self.held = 0

    def take(self, octets: int, most: int) -> bool:
        """Count them, if all of them fit."""
        if self.held + octets > most:
            return False
        self.held += octets
        return True

    def give(self, octets: int) -> None:
        """They are gone."""
        self.held -= octets

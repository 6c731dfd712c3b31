"""How does a mail server speak with a milter? Sendmail's mail filter protocol, version 6, the server's side, without any I/O.

There is no RFC: this follows what libmilter sends and takes (its documentation, and ``mfdef.h`` of Sendmail 8.14 and later).

packets   what one packet is, and what it says
client    what is said next
"""

from __future__ import annotations

from forwarder.milter.client import Broken, Finished, MilterClient, MilterMail, Phase

__all__ = ["Broken", "Finished", "MilterClient", "MilterMail", "Phase"]

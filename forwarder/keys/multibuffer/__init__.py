"""Signatures of several messages at once: ``library`` makes them, ``waiting`` says who waits for whom, ``ring`` is the keys.

lanes = load_lanes()
ring = MultibufferKeys(keys, lanes, journal)
signature = await ring.dkim("fwd.example")[0].signature(data)
"""

from forwarder.keys.multibuffer.library import Lanes, LanesMissing, LanesUnfit, LanesUnusable, load_lanes
from forwarder.keys.multibuffer.ring import MultibufferKeys

__all__ = ["Lanes", "LanesMissing", "LanesUnfit", "LanesUnusable", "MultibufferKeys", "load_lanes"]

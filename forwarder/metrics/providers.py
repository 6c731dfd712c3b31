"""Who runs this mail host? A short list of names, so that a label never holds a stranger's.

Mail goes where recipients are, and reports go to whatever domain a sender has: the names of next hops are without bound, and
part of them is chosen by strangers. What an operator asks of a graph is whether one of the large providers, or one that matters
here, has turned us down; those have a name each, and all others share one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

__all__ = ["OTHER", "Providers"]

OTHER = "other"
#: By the end of their mail hosts' names, as they stand in public MX records.
KNOWN = {
    "google.com": "google",
    "googlemail.com": "google",
    "outlook.com": "microsoft",
    "hotmail.com": "microsoft",
    "mx.microsoft": "microsoft",
    "yahoodns.net": "yahoo",
    "icloud.com": "apple",
    "apple.com": "apple",
    "gmx.net": "united-internet",
    "web.de": "united-internet",
    "kundenserver.de": "united-internet",
    "1and1.com": "united-internet",
    "ionos.com": "united-internet",
    "t-online.de": "telekom",
    "orange.fr": "orange",
    "free.fr": "free",
    "ovh.net": "ovh",
    "seznam.cz": "seznam",
    "mail.ru": "mail.ru",
    "yandex.net": "yandex",
    "yandex.ru": "yandex",
    "qq.com": "tencent",
    "netease.com": "netease",
    "naver.com": "naver",
    "protonmail.ch": "proton",
    "messagingengine.com": "fastmail",
    "zoho.com": "zoho",
    "zoho.eu": "zoho",
    "comcast.net": "comcast",
    "pphosted.com": "proofpoint",
    "ppe-hosted.com": "proofpoint",
    "mimecast.com": "mimecast",
    "barracudanetworks.com": "barracuda",
    "amazonaws.com": "amazon",
}
#: Host names that are remembered with their provider.
_MAX_KEPT = 4096


class Providers:
    """``more``: domains of mail hosts that the operator wants named; each is its own name."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._suffixes = KNOWN | {one.lower(): one.lower() for one in more}
        self._kept: OrderedDict[str, str] = OrderedDict()

    def name(self, peer: str | None) -> str:
        """Of a peer as an Outcome names it (``mx.example.org[192.0.2.1]:25``). ``"none"``: nobody was asked."""
        if not peer:
            return "none"
        known = self._kept.get(peer)
        if known is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.popitem(last=False)
            known = self._kept[peer] = self._look_up(peer.partition("[")[0].strip().rstrip(".").lower())
        return known

    def _look_up(self, host: str) -> str:
        while host:
            if host in self._suffixes:
                return self._suffixes[host]
            host = host.partition(".")[2]
        return OTHER

"""Which settings come from the environment? ``FORWARDER_RELAY__PORT=2526`` stands for ``port = 2526`` under ``[relay]``.

Two underscores part the names, their case does not count, and a number chooses an element of an array
(``FORWARDER_KEYS__DKIM__0__KEY``). A value that begins with ``[`` or ``{`` is JSON and replaces the whole list or table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from forwarder.config.locate import Path

__all__ = ["PREFIX", "Override", "apply", "read_environment"]

PREFIX = "FORWARDER_"
_DELIMITER = "__"


@dataclass(frozen=True, slots=True)
class Override:
    """One variable: where its value goes, or why it cannot."""

    variable: str
    path: tuple[str, ...]
    value: Any
    mistake: str | None = None


def read_environment(environ: Mapping[str, str], settings: Collection[str]) -> list[Override]:
    """The variables that are meant for us; ``settings`` are the names that exist at the top. Short paths first."""
    found = []
    for variable, text in environ.items():
        if not variable.upper().startswith(PREFIX):
            continue
        path = tuple(variable[len(PREFIX) :].lower().split(_DELIMITER))
        # Kubernetes sets FORWARDER_PORT and its like for a service of that name, and the tests have FORWARDER_SUITES:
        # an unknown name without a table in it is somebody else's.
        if path[0] in settings or len(path) > 1:
            found.append(_override(variable, path, text))
    return sorted(found, key=lambda one: (len(one.path), one.variable))


def _override(variable: str, path: tuple[str, ...], text: str) -> Override:
    if not text.lstrip().startswith(("[", "{")):
        return Override(variable, path, text)
    try:
        return Override(variable, path, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Override(variable, path, None, f"begins like JSON and is none: {error}")


def apply(override: Override, data: dict[str, Any]) -> Path | None:
    """Puts the value into ``data``; where it went, in the spelling of ``data``. ``None``: what is there has no such place."""
    node: Any = data
    path: Path = ()
    *parents, last = override.path
    for name in parents:
        key = _key(node, name)
        if key is None:
            return None
        if isinstance(key, int) and key == len(node):
            node.append({})
        node = node[key] if isinstance(key, int) else node.setdefault(key, {})
        path = (*path, key)
    key = _key(node, last)
    if key is None:
        return None
    if isinstance(key, int) and key == len(node):
        node.append(override.value)
    else:
        node[key] = override.value
    return (*path, key)


def _key(node: Any, name: str) -> str | int | None:
    """How ``node`` itself spells ``name``; one past the end of a list is a new element."""
    if isinstance(node, dict):
        return next((one for one in node if one.lower() == name), name)
    if isinstance(node, list) and name.isdecimal() and int(name) <= len(node):
        return int(name)
    return None

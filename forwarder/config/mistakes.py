"""How is a mistake told? One sentence with the setting's name, what is wrong with it, and the line or variable it came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from forwarder.config.locate import Path

__all__ = ["ConfigError", "Mistake", "explain", "spell"]

#: Characters of a wrong value that are shown.
_MAX_SHOWN = 60
#: Settings whose value may hold a password.
_SECRET = {("store",)}


@dataclass(frozen=True, slots=True)
class Mistake:
    """``line`` is in the file, ``variable`` in the environment; both ``None``: it is about something that is not there."""

    path: Path
    text: str
    line: int | None = None
    variable: str | None = None

    def __str__(self) -> str:
        if self.variable is not None:
            return f"{self.variable}: {self.text}"
        name = f"{spell(self.path)}: " if self.path else ""
        return f"{name}{self.text}" + (f" (line {self.line})" if self.line else "")


class ConfigError(Exception):
    """The configuration cannot be used. Every mistake is in ``mistakes``; the text has one a line."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        super().__init__(source, mistakes)
        self.source = source
        # In the order of the file, the environment last.
        self.mistakes = tuple(sorted(mistakes, key=lambda one: (one.variable is not None, one.line or 0)))

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {one}" for one in self.mistakes)


def spell(path: Path) -> str:
    """``domains."fwd.test".aliases.team[0]``, as one would write it in TOML."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else '"' + part.replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def explain(error: ErrorDetails, path: Path, names_at: Callable[[Path], Collection[str]]) -> str:
    """What is wrong, for a person. ``names_at`` knows which settings there are at a path."""
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        return "there is no such setting" + _suggestion(str(path[-1]), names_at(path[:-1]))
    if kind == "missing":
        return "is missing"
    text = str(context["error"]) if kind == "value_error" else _WORDS.get(kind, error["msg"]).format(**context)
    return text + _shown(given, path)


_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be {le} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "string_type": "must be text in quotes",
    "too_long": "must have {max_length} elements or fewer",
    "too_short": "must name at least {min_length}",
    "tuple_type": "must be a list",
}


def _suggestion(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name.lower(), names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; here are: {', '.join(sorted(names))}" if names else ""


def _shown(given: Any, path: Path) -> str:
    if path in _SECRET or not isinstance(given, str | int | float | bool):
        return ""
    text = repr(given) if isinstance(given, str) else str(given).lower() if isinstance(given, bool) else str(given)
    return f", got {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '…'}"

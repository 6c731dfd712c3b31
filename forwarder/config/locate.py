"""On which line of a TOML file does a setting stand? For messages that name it; TOML 1.0.

The document has been parsed by ``tomllib`` before, so it is valid, and this scan only has to find where keys and values begin
and end. Multi-line arrays and inline tables are entered: each of their elements has its own line.
"""

from __future__ import annotations

import bisect
import itertools
import re
import tomllib
from collections.abc import Iterator

__all__ = ["Path", "locate"]

#: The way to a setting: table and key names, and numbers for the elements of an array.
Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[\s,]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}'''
    r"""|'''.*?'{3,5}"""
    r'''|"(?:\\.|[^"\\])*"'''
    r"""|'[^']*'"""
    # A date may have a space before its time.
    r"""|[^\s,\]}#]+(?:[ ][0-9]{2}:[^\s,\]}#]*)?""",
    re.DOTALL,
)


def locate(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every table, key and array element."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [one.start() for one in re.finditer(r"\n", text)]
        self._tables: dict[Path, int] = {}
        self.lines: dict[Path, int] = {}

    def scan(self) -> None:
        table: Path = ()
        while self._more():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._key_value(table)

    def _more(self) -> bool:
        self._skip(_BLANK)
        return self._at < len(self._text)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError("not the TOML that tomllib took")
        self._at = match.end()
        return match[0]

    def _mark(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect.bisect_left(self._newlines, at) + 1)

    def _header(self) -> Path:
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        *parents, last = self._key()
        self._at += brackets
        path: Path = ()
        for name in parents:
            path = self._newest((*path, name))
            self._mark(path, start)
        path = (*path, last)
        self._mark(path, start)
        if brackets == 2:
            self._tables[path] = self._tables.get(path, -1) + 1
            path = self._newest(path)
            self._mark(path, start)
        return path

    def _newest(self, path: Path) -> Path:
        """Where ``path`` is an array of tables: its newest element."""
        return (*path, self._tables[path]) if path in self._tables else path

    def _key(self) -> Iterator[str]:
        """The parts of a dotted key; the scan stands behind it when they are used up."""
        while True:
            self._skip(_SPACE)
            raw = self._skip(_KEY)
            yield next(iter(tomllib.loads(f"{raw} = 0"))) if raw[0] in "\"'" else raw
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return
            self._at += 1

    def _key_value(self, path: Path) -> None:
        start = self._at
        for name in self._key():
            path = (*path, name)
            self._mark(path, start)
        self._at += 1
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            self._skip(_SCALAR)
            return
        self._at += 1
        for number in itertools.count():
            self._skip(_BLANK)
            if self._text[self._at] in "]}":
                break
            if opening == "[":
                self._mark((*path, number), self._at)
                self._value((*path, number))
            else:
                self._key_value(path)
        self._at += 1

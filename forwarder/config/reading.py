"""How do a file and the environment become settings? Read, overlay, validate, check; every mistake with its place."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from forwarder.config.checks import examine
from forwarder.config.environment import Override, apply, read_environment
from forwarder.config.locate import Path, locate
from forwarder.config.mistakes import ConfigError, Mistake, explain
from forwarder.config.settings import Settings, fields_at
from forwarder.config.values import read_store_url

__all__ = ["Loaded", "load", "read"]

#: Octets. 100,000 aliases take 5 MB.
_MAX_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from."""

    settings: Settings
    source: str
    lines: Mapping[Path, int]
    variables: Mapping[Path, str]

    def mistake(self, path: Path, text: str) -> Mistake:
        """A mistake in the setting at ``path``, found later."""
        return _placed(path, text, self.lines, self.variables)


def load(path: FilePath, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in this file, with the environment over them. Raises ConfigError with every mistake there is."""
    return read(path, environ).settings


def read(path: FilePath, environ: Mapping[str, str] | None = None) -> Loaded:
    """As ``load``, for who wants to tell where a setting stands."""
    source = str(path)
    text = _text(path)
    data = _parse(source, text)
    lines = locate(text)
    overrides = read_environment(os.environ if environ is None else environ, fields_at(()))
    mistakes = []
    variables: dict[Path, str] = {}
    for one in overrides:
        problem, place = _apply(one, data)
        if problem is None:
            variables[place] = one.variable
        else:
            mistakes.append(Mistake(one.path, problem, variable=one.variable))
    try:
        settings = Settings.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        for detail in error.errors():
            place = _place(detail["loc"], data)
            mistakes.append(_placed(place, explain(detail, place, fields_at), lines, variables))
        raise ConfigError(source, mistakes) from None
    for place, problem in (*examine(settings), *_open_password(path, settings, variables)):
        mistakes.append(_placed(place, problem, lines, variables))
    if mistakes:
        raise ConfigError(source, mistakes)
    return Loaded(settings, source, lines, variables)


def _text(path: FilePath) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(str(path), [Mistake((), f"cannot be read: {error.strerror}")]) from None
    if len(raw) > _MAX_FILE:
        raise ConfigError(str(path), [Mistake((), f"is larger than {_MAX_FILE} octets")])
    try:
        return raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [Mistake((), "is not UTF-8", line)]) from None


def _open_password(path: FilePath, settings: Settings, variables: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    """A password in a file that others can read."""
    url = read_store_url(settings.store)
    if url is not None and url.has_secret and ("store",) not in variables and path.stat().st_mode & 0o077:
        yield ("store",), "others can read the password in this file: chmod 600, or store_password_file"


def _parse(source: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # tomllib's own words end with the line and the column.
        raise ConfigError(source, [Mistake((), f"is not TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError(source, [Mistake((), "is not TOML: nested too deep")]) from None


def _apply(override: Override, data: dict[str, Any]) -> tuple[str | None, Path]:
    """What is wrong with the variable, and where its value went."""
    if override.mistake is not None:
        return override.mistake, ()
    place = apply(override, data)
    return (None, place) if place is not None else ("there is no such setting", ())


def _place(location: Iterable[str | int], data: Any) -> Path:
    """pydantic's location, in terms of what was written: without the names that the short forms leave out, and
    without pydantic's own "[key]"."""
    path: Path = ()
    parts = [one for one in location if one != "[key]"]
    for number, part in enumerate(parts):
        match data:
            case dict() if part in data:
                data = data[part]
            case list() if isinstance(part, int) and part < len(data):
                data = data[part]
            case dict() if number == len(parts) - 1:
                pass  # the name of what is missing
            case _:
                continue
        path = (*path, part)
    return path


def _placed(path: Path, text: str, lines: Mapping[Path, int], variables: Mapping[Path, str]) -> Mistake:
    for length in range(len(path), 0, -1):
        if (variable := variables.get(path[:length])) is not None:
            return Mistake(path, text, variable=variable)
        if (line := lines.get(path[:length])) is not None:
            return Mistake(path, text, line)
    # A table that only the environment speaks of.
    return Mistake(path, text, variable=next((v for p, v in variables.items() if p[: len(path)] == path != ()), None))

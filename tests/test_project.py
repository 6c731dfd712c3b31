"""Does the project hold what its files promise? Container files, documents, pinned requirements, scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from forwarder.config import Settings
from forwarder.config.settings import fields_at

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> str:
    """A program that was installed with the test requirements."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: requirements-dev.txt has it")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# --- containers --------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_compose_file_is_one() -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_has_nothing_to_complain_about() -> None:
    done = run(tool("hadolint"), "--no-color", "Dockerfile")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_the_store_loses_nothing_and_forgets_nothing() -> None:
    command = compose()["services"]["store"]["command"]

    pairs = dict(zip(command[1::2], command[2::2], strict=True))
    assert pairs == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--aof-use-rdb-preamble": "no",
        "--maxmemory-policy": "noeviction",
    }
    assert compose()["services"]["store"]["volumes"] == ["store:/data"]


def test_the_service_waits_for_a_healthy_store() -> None:
    service = compose()["services"]["forwarder"]

    assert service["depends_on"] == {"store": {"condition": "service_healthy"}}
    assert service["environment"]["FORWARDER_STORE"] == "redis://store:6379/0"


def test_what_the_containers_set_are_settings() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    names = set(re.findall(r"\bFORWARDER_[A-Z_]+(?==)", dockerfile)) | set(
        compose()["services"]["forwarder"]["environment"]
    )

    assert names
    assert {name.removeprefix("FORWARDER_").lower().split("__")[0] for name in names} <= fields_at(())


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert re.search(r"^USER 1000:1000$", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile
    assert "ADD " not in dockerfile


# --- requirements ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-fuzz.txt"])
def test_every_requirement_is_pinned_by_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()

    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
    for one in re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text).strip()):
        assert re.match(r"[a-z0-9-]+==[^ ]+ ", one), one
        assert "--hash=sha256:" in one, one


def test_the_pinned_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[<>=;~! ]", one)[0] for one in project["project"]["dependencies"]}
    dev = {re.split(r"[<>=;~! ]", one)[0] for one in project["dependency-groups"]["dev"]}

    assert wanted <= pins("requirements.txt").keys(), "run scripts/lock"
    extras = {
        re.split(r"[<>=;~! ]", one)[0]
        for extra in project["project"]["optional-dependencies"].values()
        for one in extra
    }
    assert wanted | dev | extras <= pins("requirements-dev.txt").keys(), "run scripts/lock"
    assert not extras & pins("requirements.txt").keys()
    assert pins("requirements-fuzz.txt").keys() == {"atheris"}, "run scripts/lock"


def test_the_tests_run_with_the_versions_that_users_get() -> None:
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


# --- documents ---------------------------------------------------------------------------------------------------------


def settings_of(table: type[BaseModel], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting there is, lists and maps of tables under their own name, and its default."""
    for name, field in table.model_fields.items():
        inner = table_in(field.annotation)
        is_plain_table = inner is not None and inner is field.annotation
        if not is_plain_table:
            yield at + name, field
        if inner is not None:
            yield from settings_of(inner, f"{at}{name}.")


def table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for one in map(table_in, get_args(annotation)) if one is not None), None)


def documented() -> dict[str, tuple[str, str, str]]:
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| (.*?) \| (.*) \| `(FORWARDER_[A-Z0-9_.]+)(?:=[^`]*)?` \|$",
        (ROOT / "docs/config.md").read_text(),
        re.MULTILINE,
    )
    return {name: (default, meaning, variable) for name, default, meaning, variable in rows}


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    assert documented().keys() == dict(settings_of(Settings)).keys()


@pytest.mark.parametrize("name", dict(settings_of(Settings)))
def test_a_documented_default_is_the_default(name: str) -> None:
    field = dict(settings_of(Settings))[name]
    default, meaning, variable = documented()[name]

    first, *_, last = variable.removeprefix("FORWARDER_").lower().split("__") * 2
    assert meaning.endswith((".", "**"))
    assert first == name.partition(".")[0]
    assert last in (name.rpartition(".")[2], "team", "listen")
    if default.startswith("`"):
        assert str(toml_value(default.strip("`"))) == str(plain(field.default)), (name, field.default)
    elif default == "required":
        assert field.is_required() or name == "domains.aliases.targets"
    else:
        assert not field.is_required()


def toml_value(text: str) -> Any:
    value = tomllib.loads(f"x = {text}")["x"]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def plain(default: Any) -> Any:
    """A default as it would be written."""
    if isinstance(default, tuple):
        return [one.address for one in default]
    return float(default) if isinstance(default, int) and not isinstance(default, bool) else default


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda one: str(one.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [one for one in re.findall(r"\]\(([^)#]+)", text) if "://" not in one]

    assert [one for one in links if not (document.parent / one).exists()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda one: str(one.relative_to(ROOT)))
def test_scripts_that_documents_name_exist(document: Path) -> None:
    names = set(re.findall(r"\bscripts/[a-z]+\b", document.read_text(encoding="utf-8")))

    assert [one for one in names if not (ROOT / one).exists()] == []


def test_decisions_have_a_number_of_their_own() -> None:
    numbers = [file.name[:4] for file in (ROOT / "docs/decisions").glob("[0-9]*.md")]

    assert len(numbers) == len(set(numbers))


# --- scripts -----------------------------------------------------------------------------------------------------------


SCRIPTS = [".ci/run", *(f"scripts/{one.name}" for one in sorted((ROOT / "scripts").iterdir()) if not one.suffix)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_run_and_have_nothing_to_complain_about(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111 == 0o111
    done = run(tool("shellcheck"), "-x", name)

    assert done.returncode == 0, done.stdout


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', (ROOT / "forwarder/__init__.py").read_text(), re.MULTILINE)

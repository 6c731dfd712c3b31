"""forwarder.directory: which address leads where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.directory import DeadEnd, ServedDomain, StaticDirectory
from forwarder.mail.address import parse_address
from forwarder.model import Address
from forwarder.ports import AliasFound, DirectoryAnswer, MailboxFound, NoSuchAlias, NotOurDomain

ADMIN = Address("admin", "out.test")


def addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(map(parse_address, texts))


def aliases(listed: Mapping[str, Sequence[str]]) -> dict[str, tuple[Address, ...]]:
    return {name: addresses(*targets) for name, targets in listed.items()}


def directory(
    listed: Mapping[str, Sequence[str]], *, plus: bool = True, admin: Address | None = None
) -> StaticDirectory:
    """One domain, fwd.test."""
    return StaticDirectory(
        {"fwd.test": ServedDomain(aliases(listed), plus_addressing=plus)}, srs_domain="srs.test", admin=admin
    )


async def ask(where: StaticDirectory, text: str) -> DirectoryAnswer:
    return await where.look_up(parse_address(text))


# --- one address -------------------------------------------------------------------------------------------------------

LISTED = {
    "alias": ["dest@sink.test"],
    "Team": ["a@one.test", "b@two.test", "a@one.test"],
    '"john doe"': ["john@sink.test"],
    "a+b": ["plus@sink.test"],
    "off": [],
    "jürgen": ["j@sink.test"],
}


@pytest.mark.parametrize(
    ("asked", "alias", "targets"),
    [
        pytest.param("alias@fwd.test", "alias", ["dest@sink.test"], id="as it is listed"),
        pytest.param("ALIAS@FWD.TEST", "alias", ["dest@sink.test"], id="case does not count"),
        pytest.param("team@fwd.test", "Team", ["a@one.test", "b@two.test"], id="several targets, each once"),
        pytest.param("alias+news@fwd.test", "alias", ["dest@sink.test"], id="a tag"),
        pytest.param("alias+news+x@fwd.test", "alias", ["dest@sink.test"], id="two tags"),
        pytest.param("alias+@fwd.test", "alias", ["dest@sink.test"], id="an empty tag"),
        pytest.param("a+b@fwd.test", "a+b", ["plus@sink.test"], id="an alias with a plus sign"),
        pytest.param("a+b+c@fwd.test", "a+b", ["plus@sink.test"], id="with a tag behind it"),
        pytest.param('"alias"@fwd.test', "alias", ["dest@sink.test"], id="quotes without need"),
        pytest.param(r'"al\ias"@fwd.test', "alias", ["dest@sink.test"], id="a backslash without need"),
        pytest.param('"John Doe"@fwd.test', '"john doe"', ["john@sink.test"], id="quotes that are needed"),
        pytest.param("JÜRGEN@fwd.test", "jürgen", ["j@sink.test"], id="not only ASCII"),
        pytest.param("ju\u0308rgen@fwd.test", "jürgen", ["j@sink.test"], id="composed or not"),
    ],
)
async def test_an_alias_is_found(asked: str, alias: str, targets: list[str]) -> None:
    assert await ask(directory(LISTED), asked) == AliasFound(Address(alias, "fwd.test"), addresses(*targets))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("nobody@fwd.test", NoSuchAlias()),
        ("off@fwd.test", NoSuchAlias()),
        ("off+tag@fwd.test", NoSuchAlias()),
        ("+alias@fwd.test", NoSuchAlias()),
        ("alias@other.test", NotOurDomain()),
        ("alias@sub.fwd.test", NotOurDomain()),
        ("alias@[192.0.2.1]", NotOurDomain()),
        ("alias@srs.test", NoSuchAlias()),
        ("*@fwd.test", NoSuchAlias()),
    ],
)
async def test_what_is_not_an_alias_is_not_found(asked: str, answer: DirectoryAnswer) -> None:
    assert await ask(directory(LISTED), asked) == answer


async def test_tags_can_be_switched_off() -> None:
    where = directory({**LISTED, "a+b": ["plus@sink.test"]}, plus=False)

    assert await ask(where, "alias+tag@fwd.test") == NoSuchAlias()
    assert isinstance(await ask(where, "a+b@fwd.test"), AliasFound)


async def test_a_thousand_plus_signs_are_a_tag_like_any_other() -> None:
    where = directory(LISTED)

    assert isinstance(await where.look_up(Address("alias" + "+" * 1000, "fwd.test")), AliasFound)


# --- catch-all ---------------------------------------------------------------------------------------------------------

CATCHING = {**LISTED, "*": ["rest@sink.test"]}


@pytest.mark.parametrize(
    ("asked", "alias"),
    [
        ("anybody@fwd.test", "anybody"),
        ("AnyBody@fwd.test", "anybody"),
        ('"anybody"@fwd.test', "anybody"),
        ('"Any Body"@fwd.test', '"any body"'),
        ('"a\\"b"@fwd.test', '"a\\"b"'),
        ("any+body@fwd.test", "any+body"),
    ],
)
async def test_a_catch_all_takes_the_rest_under_the_address_that_was_asked_for(asked: str, alias: str) -> None:
    found = await ask(directory(CATCHING), asked)

    assert found == AliasFound(Address(alias, "fwd.test"), addresses("rest@sink.test"))
    assert parse_address(str(Address(alias, "fwd.test")))


async def test_a_catch_all_does_not_take_what_is_disabled() -> None:
    assert await ask(directory(CATCHING), "off@fwd.test") == NoSuchAlias()
    assert await ask(directory(CATCHING), "off+tag@fwd.test") == NoSuchAlias()


async def test_a_catch_all_does_not_take_postmaster() -> None:
    assert await ask(directory(CATCHING), "abuse@fwd.test") == MailboxFound(Address("abuse", "fwd.test"), "abuse")


async def test_a_disabled_catch_all_takes_nothing() -> None:
    assert await ask(directory({"*": []}), "anybody@fwd.test") == NoSuchAlias()


# --- postmaster and abuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["fwd.test", "srs.test", "own.test", "mx.test"])
@pytest.mark.parametrize("local", ["postmaster", "PostMaster", "abuse", "abuse+complaint"])
async def test_postmaster_and_abuse_are_in_every_domain(local: str, domain: str) -> None:
    domains = {"fwd.test": ServedDomain({}, srs_domain="own.test")}
    kept = StaticDirectory(domains, srs_domain="srs.test", hostname="mx.test")
    sent = StaticDirectory(domains, srs_domain="srs.test", hostname="mx.test", admin=ADMIN)
    name = local.lower().partition("+")[0]

    assert await ask(kept, f"{local}@{domain}") == MailboxFound(Address(name, domain), name)
    assert await ask(sent, f"{local}@{domain}") == AliasFound(Address(name, domain), (ADMIN,))


async def test_postmaster_may_be_an_alias_like_any_other() -> None:
    where = directory({"postmaster": ["chief@sink.test"]}, admin=ADMIN)

    assert await ask(where, "postmaster@fwd.test") == AliasFound(
        Address("postmaster", "fwd.test"), addresses("chief@sink.test")
    )


async def test_an_admin_behind_an_alias_of_ours_is_found_at_its_end() -> None:
    where = directory({"me": ["me@sink.test"]}, admin=Address("me", "fwd.test"))

    assert await ask(where, "postmaster@fwd.test") == AliasFound(
        Address("postmaster", "fwd.test"), addresses("me@sink.test")
    )


async def test_an_admin_who_is_the_postmaster_ends_in_the_mailbox() -> None:
    where = directory({}, admin=Address("postmaster", "fwd.test"))

    assert await ask(where, "postmaster@fwd.test") == MailboxFound(Address("postmaster", "fwd.test"), "postmaster")


# --- domains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", ["bücher.example", "xn--bcher-kva.example"])
@pytest.mark.parametrize(
    "asked", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.example"]
)
async def test_a_domain_is_the_same_in_a_labels_and_u_labels(listed: str, asked: str) -> None:
    where = StaticDirectory({listed: ServedDomain(aliases({"x": ["y@sink.test"]}))}, srs_domain="srs.test")

    assert await ask(where, f"x@{asked}") == AliasFound(Address("x", "xn--bcher-kva.example"), addresses("y@sink.test"))
    assert where.is_ours(asked)


def test_reversible_addresses_are_minted_under_the_domain_s_own_or_the_common_domain() -> None:
    where = StaticDirectory(
        {"one.test": ServedDomain({}, srs_domain="Own.test"), "two.test": ServedDomain({})}, srs_domain="srs.test"
    )

    assert [where.srs_domain(one) for one in ("one.test", "ONE.test", "two.test", "other.test")] == [
        "own.test",
        "own.test",
        "srs.test",
        "srs.test",
    ]
    assert [where.is_srs_domain(one) for one in ("own.test", "SRS.test", "one.test", "two.test")] == [
        True,
        True,
        False,
        False,
    ]


def test_mail_is_taken_for_the_domains_of_reversible_addresses_too() -> None:
    where = StaticDirectory({"one.test": ServedDomain({}, srs_domain="own.test")}, srs_domain="srs.test")

    assert all(where.is_ours(one) for one in ("one.test", "own.test", "srs.test"))
    assert not where.is_ours("test")


# --- aliases of aliases ------------------------------------------------------------------------------------------------


async def targets_of(where: StaticDirectory, text: str) -> tuple[str, ...]:
    found = await ask(where, text)
    return tuple(map(str, found.targets)) if isinstance(found, AliasFound) else ()


async def test_aliases_of_aliases_are_followed_to_their_end_each_target_once() -> None:
    where = directory(
        {
            "all": ["team@fwd.test", "boss@fwd.test", "x@sink.test"],
            "team": ["a@sink.test", "boss+team@fwd.test"],
            "boss": ["b@sink.test", "a@sink.test"],
        }
    )

    assert set(await targets_of(where, "all@fwd.test")) == {"x@sink.test", "a@sink.test", "b@sink.test"}
    assert len(await targets_of(where, "all@fwd.test")) == 3
    assert where.dead_ends == ()


async def test_domains_of_ours_lead_into_each_other() -> None:
    where = StaticDirectory(
        {
            "one.test": ServedDomain(aliases({"*": ["x@two.test"]})),
            "two.test": ServedDomain(aliases({"x": ["y@sink.test"]})),
        },
        srs_domain="srs.test",
    )

    assert await targets_of(where, "any@one.test") == ("y@sink.test",)


async def test_a_circle_with_a_way_out_takes_it() -> None:
    where = directory({"a": ["b@fwd.test"], "b": ["a@fwd.test", "out@sink.test"]})

    assert await targets_of(where, "a@fwd.test") == ("out@sink.test",)
    assert await targets_of(where, "b@fwd.test") == ("out@sink.test",)
    assert where.dead_ends == ()


async def test_a_circle_without_a_way_out_is_told_and_leads_nowhere() -> None:
    where = directory({"a": ["b@fwd.test"], "b": ["a@fwd.test"], "*": ["any@fwd.test"]})

    assert await ask(where, "a@fwd.test") == NoSuchAlias()
    assert DeadEnd("fwd.test", "a", None) in where.dead_ends
    assert DeadEnd("fwd.test", "*", None) in where.dead_ends


async def test_a_target_of_ours_that_does_not_exist_is_told_and_left_out() -> None:
    where = directory({"a": ["none@fwd.test", "out@sink.test"], "b": ["a@fwd.test"], "c": ["abuse@fwd.test"]})

    assert await targets_of(where, "a@fwd.test") == ("out@sink.test",)
    assert where.dead_ends == (
        DeadEnd("fwd.test", "a", Address("none", "fwd.test")),
        DeadEnd("fwd.test", "c", Address("abuse", "fwd.test")),
    )


async def test_a_target_that_is_disabled_is_no_mistake() -> None:
    where = directory({"a": ["off@fwd.test", "out@sink.test"], "b": ["off@fwd.test"], "off": []})

    assert await targets_of(where, "a@fwd.test") == ("out@sink.test",)
    assert await ask(where, "b@fwd.test") == NoSuchAlias()
    assert where.dead_ends == ()


NAMES = st.sampled_from(["a", "b", "c", "*"])
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "d", "out"]), max_size=3)


@given(st.dictionaries(NAMES, TARGETS))
async def test_whatever_leads_where_the_answer_is_outside(listed: dict[str, list[str]]) -> None:
    where = directory(
        {
            name: [f"{one}@{'sink' if one == 'out' else 'fwd'}.test" for one in targets]
            for name, targets in listed.items()
        }
    )

    for name in "abcd":
        found = await ask(where, f"{name}@fwd.test")
        assert found == NoSuchAlias() or isinstance(found, AliasFound)
        if isinstance(found, AliasFound):
            assert found.targets == addresses("out@sink.test")

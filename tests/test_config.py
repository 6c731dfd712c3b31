"""forwarder.config: what is taken, what is refused, and where the operator is sent to look."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forwarder.config import ConfigError, Settings, load
from forwarder.config.locate import locate
from forwarder.model import Address

LEAST = """\
hostname = "mx.fwd.test"
[srs]
domain = "fwd.test"
"""

#: The example of the design: these names do not change.
EXAMPLE = """\
hostname  = "mx.fwd.test"
listen    = ["127.0.0.25:25"]
state_dir = "state"
store     = "embedded"
workers   = 1

[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"

[dns]
nameservers = ["127.0.0.1:5354"]
zone_file = "zone.json"

[[keys.mailkey]]
domain = "fwd.test"
key = "keys/mailkey.pem"
[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pk8"
[keys.arc]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pk8"

[relay]
port = 25
smarthost = ""
allow_private = false
in_session = 20
hold = "auto"

[queue]
first_retry = 300
max_retry = 14400
lifetime = 432000
max_body = 8388608
high_water = 1073741824

[limits]
message_size = 36700160
recipients = 100

[policy]
unauthenticated = "tag"
dmarc_reject = "reject"

[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
team = ["a@one.test", "b@two.test"]
"*" = ["catchall@sink.test"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files that the examples name."""
    (tmp_path / "keys").mkdir()
    for name in ("keys/srs.secret", "keys/mailkey.pem", "keys/fwd.rsa.pk8", "zone.json", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    return tmp_path


def loaded(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    file = folder / "forwarder.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ or {})


def mistakes(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, environ)
    return [str(one) for one in raised.value.mistakes]


# --- what is taken -----------------------------------------------------------------------------------------------------


def test_the_example_of_the_design_is_taken(folder: Path) -> None:
    settings = loaded(folder, EXAMPLE)

    assert settings.listen_addresses == ("127.0.0.25:25",)
    assert settings.keys.mailkey[0].selector == ""
    assert settings.keys.arc is not None
    assert settings.keys.arc.key == folder / "keys/fwd.rsa.pk8"
    assert settings.domains["fwd.test"].aliases["team"].targets == (Address("a", "one.test"), Address("b", "two.test"))


@pytest.mark.parametrize(
    ("smarthost", "tls"),
    [
        ("mail.example.org:587", "verify"),
        ("mail.example.org:465", "implicit"),
        ("127.0.0.1:25", "opportunistic"),
        ("[::1]:25", ""),
        ("localhost:25", "none"),
    ],
)
def test_a_login_goes_over_verified_tls_or_stays_on_this_host(folder: Path, smarthost: str, tls: str) -> None:
    login = 'smarthost_user = "us"\nsmarthost_password_file = "key.pem"\n'
    relay = f'[relay]\nsmarthost = "{smarthost}"\nsmarthost_tls = "{tls}"\n{login}'
    assert loaded(folder, LEAST + relay).relay.smarthost_password_file == folder / "key.pem"


def test_the_defaults_are_those_of_the_design(folder: Path) -> None:
    least, example = loaded(folder, LEAST), loaded(folder, EXAMPLE)

    for name in ("state_dir", "store", "workers", "srs", "relay", "queue", "limits", "policy"):
        assert getattr(least, name) == getattr(example, name), name
    assert least.dns.zone_file is None


def test_paths_are_relative_to_the_file_and_not_to_where_one_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "forwarder.toml").write_text(LEAST)
    monkeypatch.chdir(folder)

    settings = load(Path("forwarder.toml"), {})

    assert settings.srs.secret_file == folder / "keys/srs.secret"
    assert settings.state_dir == folder / "state"


def test_an_absolute_path_stays(folder: Path) -> None:
    assert loaded(folder, 'state_dir = "/var/lib/forwarder"\n' + LEAST).state_dir == Path("/var/lib/forwarder")


@pytest.mark.parametrize(
    ("written", "targets", "enabled"),
    [
        pytest.param('"a@x.test"', ("a@x.test",), True, id="one target"),
        pytest.param('["a@x.test", "b@y.test"]', ("a@x.test", "b@y.test"), True, id="several"),
        pytest.param("false", (), False, id="disabled"),
        pytest.param('{ targets = ["a@x.test"], enabled = false }', ("a@x.test",), False, id="disabled, targets kept"),
        pytest.param('{ targets = ["a@x.test"] }', ("a@x.test",), True, id="a table"),
    ],
)
def test_an_alias_can_be_written_short_or_long(
    folder: Path, written: str, targets: tuple[str, ...], enabled: bool
) -> None:
    alias = (
        loaded(folder, LEAST + f'[domains."fwd.test".aliases]\nname = {written}\n').domains["fwd.test"].aliases["name"]
    )

    assert (tuple(map(str, alias.targets)), alias.enabled) == (targets, enabled)


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ('["127.0.0.1:25"]', ("127.0.0.1:25",)),
        ('"127.0.0.1:25"', ("127.0.0.1:25",)),
        ('["[::1]:25", { address = "0.0.0.0:0" }]', ("[::1]:25", "0.0.0.0:0")),
        ('["[2001:DB8:0::1]:25"]', ("[2001:db8::1]:25",)),
    ],
)
def test_listeners_are_addresses_or_tables(folder: Path, written: str, want: tuple[str, ...]) -> None:
    assert loaded(folder, f"listen = {written}\n" + LEAST).listen_addresses == want


def test_a_nameserver_has_port_53_unless_it_says_otherwise(folder: Path) -> None:
    settings = loaded(folder, LEAST + '[dns]\nnameservers = ["192.0.2.1", "::1", "[::1]:5353"]\n')

    assert settings.dns.nameservers == ("192.0.2.1:53", "[::1]:53", "[::1]:5353")


def test_domains_become_a_labels_in_lower_case(folder: Path) -> None:
    settings = loaded(folder, LEAST.replace("fwd.test", "FWD.test") + '[domains."bücher.example"]\n')

    assert settings.hostname == "mx.fwd.test"
    assert set(settings.domains) == {"xn--bcher-kva.example"}


@pytest.mark.parametrize("written", ["smtp.example:25", "127.0.0.1:2599", "[::1]:25", ""])
def test_a_smarthost_is_a_name_or_an_address(folder: Path, written: str) -> None:
    assert loaded(folder, LEAST + f'[relay]\nsmarthost = "{written}"\n').relay.smarthost == written


def test_tls_rules_are_for_a_domain_or_for_all_names_below_it(folder: Path) -> None:
    written = '[relay.tls.domains]\n"B\u00dccher.example" = "verify"\n".Example.org" = "none"\n'

    assert loaded(folder, LEAST + written).relay.tls.domains == {
        "xn--bcher-kva.example": "verify",
        ".example.org": "none",
    }


def test_nothing_can_be_changed_afterwards(folder: Path) -> None:
    settings = loaded(folder, EXAMPLE)
    aliases: Any = settings.domains["fwd.test"].aliases

    with pytest.raises(ValidationError):
        settings.relay.port = 26  # type: ignore[misc]
    with pytest.raises(TypeError):
        aliases["new"] = ()


def test_a_password_in_the_store_s_url_is_not_shown(folder: Path) -> None:
    settings = loaded(folder, LEAST, {"FORWARDER_STORE": "rediss://user:hunter2@store:6379/0"})

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in "".join(mistakes(folder, LEAST, {"FORWARDER_STORE": "rediis://user:hunter2@store"}))


@pytest.mark.parametrize(
    ("url", "lacking"),
    [
        ("redis://store.example", "without TLS (rediss://) and without a password"),
        ("redis://:hunter2@192.0.2.1:6379", "without TLS (rediss://)"),
        ("rediss://store.example", "without a password"),
        ("rediss://user:hunter2@store.example?ssl_cert_reqs=none", "without TLS (rediss://)"),
        ("redis+sentinel://:hunter2@127.0.0.1,store.example/mail", "without TLS (rediss://)"),
        ("rediss+cluster://127.0.0.1,store.example", "without a password"),
    ],
)
def test_a_store_elsewhere_needs_tls_and_a_password(folder: Path, url: str, lacking: str) -> None:
    environ = {"FORWARDER_STORE": url}
    [told] = mistakes(folder, LEAST, environ)
    assert told == (
        f"FORWARDER_STORE: a server elsewhere, {lacking}: who is between can read and make mail;"
        " store_insecure = true if nobody is"
    )
    assert loaded(folder, LEAST, environ | {"FORWARDER_STORE_INSECURE": "true"}).store == url


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/valkey.sock",
        "redis://127.0.0.1",
        "redis://[::1]:6379",
        "redis://localhost/0",
        "rediss://user:hunter2@store.example",
        "rediss://store.example?ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
        "redis+sentinel://127.0.0.1:1,[::1]:2/mail",
        "rediss+cluster://user:hunter2@store.example,other.example:1",
    ],
)
def test_a_store_here_or_behind_tls_and_a_password_is_taken(folder: Path, url: str) -> None:
    assert loaded(folder, LEAST, {"FORWARDER_STORE": url}).store == url


@pytest.mark.parametrize(
    "url",
    ["rediss://:hunter2@store.example", "redis+sentinel://127.0.0.1/mail?sentinel_password=hunter2"],
)
def test_a_password_in_a_file_that_others_read_is_refused(folder: Path, url: str) -> None:
    config = folder / "forwarder.toml"
    config.write_text(f'store = "{url}"\n' + LEAST)
    config.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read the password in this file: chmod 600") as refused:
        load(config, {})
    assert "hunter2" not in str(refused.value)
    config.chmod(0o600)
    assert load(config, {}).store == url


def test_a_store_has_one_password(folder: Path) -> None:
    written = 'store_password_file = "key.pem"\n'
    [told] = mistakes(folder, written + LEAST, {"FORWARDER_STORE": "rediss://:hunter2@store.example"})
    assert "the URL in store has a password already" in told
    [told] = mistakes(folder, written + LEAST)
    assert "the embedded store takes no password" in told


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4318", "http://localhost:4318", "http://[::1]:4318/otlp", "https://tempo.example", ""]
)
def test_spans_go_to_this_host_or_over_tls(folder: Path, url: str) -> None:
    assert loaded(folder, LEAST, {"FORWARDER_OTEL__ENDPOINT": url}).otel.endpoint == url


def test_spans_leave_in_clear_text_where_the_operator_says_so(folder: Path) -> None:
    environ = {"FORWARDER_OTEL__ENDPOINT": "http://tempo.example:4318"}
    [told] = mistakes(folder, LEAST, environ)
    assert "endpoint needs https" in told
    assert loaded(folder, LEAST, environ | {"FORWARDER_OTEL__INSECURE": "true"}).otel.insecure


@pytest.mark.parametrize(
    "url", ["tempo.example:4318", "grpc://127.0.0.1:4317", "http://", "http://u:p@127.0.0.1", "http://h?x"]
)
def test_a_collector_is_a_url_of_http(folder: Path, url: str) -> None:
    [told] = mistakes(folder, LEAST, {"FORWARDER_OTEL__ENDPOINT": url})
    assert "must be http://host:port or https://host" in told


# --- the environment ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "path", "want"),
    [
        ("FORWARDER_RELAY__PORT", "2526", "relay.port", 2526),
        ("FORWARDER_HOSTNAME", "other.test", "hostname", "other.test"),
        ("forwarder_hostname", "other.test", "hostname", "other.test"),
        ("FORWARDER_RELAY__ALLOW_PRIVATE", "true", "relay.allow_private", True),
        ("FORWARDER_STORE_TIMEOUT", "1.5", "store_timeout", 1.5),
        ("FORWARDER_LISTEN", "127.0.0.1:1, [::1]:2", "listen_addresses", ("127.0.0.1:1", "[::1]:2")),
        ("FORWARDER_LISTEN", '["127.0.0.1:1"]', "listen_addresses", ("127.0.0.1:1",)),
        ("FORWARDER_DNS__NAMESERVERS", "192.0.2.1", "dns.nameservers", ("192.0.2.1:53",)),
        ("FORWARDER_DNS__ZONE_FILE", "", "dns.zone_file", None),
        ("FORWARDER_RELAY__TLS__DEFAULT", "require", "relay.tls.default", "require"),
        ("FORWARDER_RELAY__TLS__DOMAINS__EXAMPLE.ORG", "verify", "relay.tls.domains", {"example.org": "verify"}),
        ("FORWARDER_ADMIN__ADDRESS", "me@x.test", "admin.address", Address("me", "x.test")),
    ],
)
def test_the_environment_goes_over_the_file(folder: Path, variable: str, value: str, path: str, want: object) -> None:
    found: Any = loaded(folder, EXAMPLE, {variable: value})
    for name in path.split("."):
        found = getattr(found, name)

    assert found == want


def test_a_selector_from_the_environment_may_look_like_a_number(folder: Path) -> None:
    settings = loaded(folder, EXAMPLE, {"FORWARDER_KEYS__DKIM__0__SELECTOR": "2026"})

    assert settings.keys.dkim[0].selector == "2026"
    assert settings.keys.dkim[0].domain == "fwd.test"


def test_a_list_from_the_environment_can_grow(folder: Path) -> None:
    environ = {"FORWARDER_KEYS__MAILKEY__0__DOMAIN": "fwd.test", "FORWARDER_KEYS__MAILKEY__0__KEY": "keys/mailkey.pem"}

    whole = loaded(folder, LEAST, {"FORWARDER_KEYS__MAILKEY": "[]", **environ})

    assert whole.keys.mailkey[0].key == folder / "keys/mailkey.pem"


def test_an_alias_from_the_environment(folder: Path) -> None:
    settings = loaded(
        folder,
        EXAMPLE,
        {
            "FORWARDER_DOMAINS__FWD.TEST__ALIASES__TEAM": "one@x.test",
            "FORWARDER_DOMAINS__FWD.TEST__ALIASES__ALIAS": "false",
            "FORWARDER_DOMAINS__FWD.TEST__PLUS_ADDRESSING": "false",
        },
    )

    domain = settings.domains["fwd.test"]
    assert domain.aliases["team"].targets == (Address("one", "x.test"),)
    assert not domain.aliases["alias"].enabled
    assert not domain.plus_addressing


def test_variables_of_others_are_left_alone(folder: Path) -> None:
    # Kubernetes sets the first three for a service of that name.
    environ = {
        "FORWARDER_PORT": "tcp://10.0.0.1:25",
        "FORWARDER_SERVICE_HOST": "10.0.0.1",
        "FORWARDER_PORT_25_TCP": "tcp://10.0.0.1:25",
        "FORWARDER_SUITES": "/somewhere",
        "FORWARDERX_RELAY__PORT": "1",
    }

    assert loaded(folder, LEAST, environ) == loaded(folder, LEAST)


# --- what is refused ---------------------------------------------------------------------------------------------------

D = '[domains."fwd.test"'


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param('hostname = "h.test"\n', ["srs: is missing"], id="no table"),
        pytest.param('hostname = "h.test"\n[srs]\n', ["srs.domain: is missing (line 2)"], id="no setting in a table"),
        pytest.param(
            LEAST + "[relay]\nprot = 25\n",
            ["relay.prot: there is no such setting; did you mean 'port'? (line 5)"],
            id="a slip",
        ),
        pytest.param(
            LEAST + "[log]\nzzz = 25\n",
            ["log.zzz: there is no such setting; here are: format, full_addresses (line 5)"],
            id="an unknown name",
        ),
        pytest.param(
            'statedir = "x"\n' + LEAST,
            ["statedir: there is no such setting; did you mean 'state_dir'? (line 1)"],
            id="a slip at the top",
        ),
        pytest.param(
            LEAST + '[relay]\nport = "x"\n', ["relay.port: must be a whole number, got 'x' (line 5)"], id="no number"
        ),
        pytest.param(LEAST + "[relay]\nport = 0\n", ["relay.port: must be 1 or more, got 0 (line 5)"], id="too small"),
        pytest.param(
            LEAST + "[relay]\nport = 65536\n", ["relay.port: must be 65535 or less, got 65536 (line 5)"], id="too large"
        ),
        pytest.param(
            LEAST + "[relay]\nin_session = true\n",
            ["relay.in_session: must be a number, got true (line 5)"],
            id="true is no 1",
        ),
        pytest.param(
            LEAST + "[dns]\ntimeout = inf\n", ["dns.timeout: must be a finite number, got inf (line 5)"], id="endless"
        ),
        pytest.param(
            LEAST + '[relay]\nhold = "x"\n',
            ["relay.hold: must be 'auto', 'never' or 'always', got 'x' (line 5)"],
            id="none of the words",
        ),
        pytest.param(
            "relay = 5\n" + LEAST, ["relay: must be a table, got 5 (line 1)"], id="a value in the place of a table"
        ),
        pytest.param(
            LEAST.replace('"mx.fwd.test"', "5"), ["hostname: must be text in quotes, got 5 (line 1)"], id="no text"
        ),
        pytest.param(
            LEAST.replace("mx.fwd.test", "mx..test"),
            ["hostname: must be a domain name, like mail.example.org, got 'mx..test' (line 1)"],
            id="no domain",
        ),
        pytest.param(
            LEAST.replace("mx.fwd.test", "[192.0.2.1]"),
            ["hostname: must be a domain name, not an address, got '[192.0.2.1]' (line 1)"],
            id="an address literal",
        ),
        pytest.param("listen = []\n" + LEAST, ["listen: must name at least 1 (line 1)"], id="an empty list"),
        pytest.param(
            "store_timeout = 0.04\n" + LEAST,
            ["store_timeout: must be 0.05 or more, got 0.04 (line 1)"],
            id="no time for the store",
        ),
        pytest.param(
            "store_timeout = 11\n" + LEAST,
            ["store_timeout: must be 10 or less, got 11 (line 1)"],
            id="a store without end",
        ),
        pytest.param(
            'listen = [{ address = "127.0.0.1:465", submission = true, tls = "implicit", proxy = ["10.0.0.0/8"] }]\n'
            + LEAST,
            ['listen[0]: proxy, xclient and xforward are for tls = "starttls" (line 1)'],
            id="a proxy before TLS from the first octet",
        ),
        pytest.param(
            LEAST + '[[dnsbl]]\nzone = "bl.example"\n[[dnsbl]]\nzone = "BL.example"\n',
            ["dnsbl[1].zone: bl.example is listed twice: it would count twice (line 7)"],
            id="a DNS list twice",
        ),
        pytest.param(
            LEAST + "[greylist]\nenabled = true\nfrom_score = 1\n",
            ["greylist.from_score: nobody has a score: there is no [[dnsbl]] (line 6)"],
            id="a score without a list",
        ),
        pytest.param(
            LEAST + '[[content.rspamd]]\nurl = "https://x.test"\n',
            [
                (
                    "content.rspamd[0].url: must be http://host:port or unix:/path, like http://127.0.0.1:11333, "
                    "got 'https://x.test' (line 5)"
                )
            ],
            id="a filter that is asked in another way",
        ),
        pytest.param(
            LEAST + '[[content.milter]]\nsocket = "127.0.0.1:8891"\n',
            [
                (
                    "content.milter[0].socket: must be inet:host:port or unix:/path, like inet:127.0.0.1:8891, "
                    "got '127.0.0.1:8891' (line 5)"
                )
            ],
            id="a milter's socket in another's spelling",
        ),
        pytest.param(
            LEAST + '[[content.rspamd]]\nurl = "unix:/r"\naccept_fields = ["From", "X Y"]\n',
            [
                "content.rspamd[0].accept_fields[0]: From is not a filter's to write, got 'From' (line 6)",
                (
                    "content.rspamd[0].accept_fields[1]: must be the name of a header field, like X-Spam-Status, "
                    "without the colon, got 'X Y' (line 6)"
                ),
            ],
            id="fields that no filter may write",
        ),
        pytest.param(
            LEAST + '[[content.rspamd]]\nurl = "unix:/r"\ntag_above = 5\nreject_above = 4\n',
            ["content.rspamd[0]: reject_above is below tag_above: tag_above would never matter (line 4)"],
            id="limits out of order",
        ),
        pytest.param(
            LEAST + '[[content.rspamd]]\nurl = "unix:/r"\n[[content.milter]]\nsocket = "unix:/m"\nname = "rspamd"\n',
            ["content.milter[0].name: two filters have the name rspamd: give each its own (line 8)"],
            id="two filters of one name",
        ),
        pytest.param(
            LEAST + "[content]\nsubmission = true\n",
            ["content.submission: there is nobody to ask: no [[content.rspamd]], no [[content.milter]] (line 5)"],
            id="nobody to ask",
        ),
        pytest.param(
            LEAST + "[greylist]\nwindow = 60\n",
            ["greylist: window must be more than delay: nobody could come back in time (line 4)"],
            id="nobody can come back in time",
        ),
        pytest.param(
            'listen = [{ address = "127.0.0.1:25", proxy = ["0.0.0.0/0"] }]\n' + LEAST,
            [
                "listen[0].proxy[0]: is too wide to be trusted: name the networks of your own hosts, got '0.0.0.0/0' (line 1)"
            ],
            id="everybody is a proxy",
        ),
        pytest.param(
            'listen = [\n  "127.0.0.1:25",\n  "localhost:25",\n]\n' + LEAST,
            ["listen[1]: must be an IP address and a port, like 127.0.0.1:25 or [::1]:25, got 'localhost:25' (line 3)"],
            id="an element on its own line",
        ),
        pytest.param(
            'listen = ["127.0.0.1:25", "127.0.0.1:25"]\n' + LEAST,
            ["listen[1]: 127.0.0.1:25 is listed twice (line 1)"],
            id="twice the same",
        ),
        pytest.param(
            LEAST + '[relay]\nsmarthost = "example.org"\n',
            ["relay.smarthost: must be host:port, like smtp.example.org:25, got 'example.org' (line 5)"],
            id="a smarthost without a port",
        ),
        pytest.param(
            LEAST + '[relay.tls.domains]\n"a.test" = "always"\n',
            [
                (
                    "relay.tls.domains.\"a.test\": must be 'none', 'opportunistic', 'require' or 'verify', "
                    "got 'always' (line 5)"
                )
            ],
            id="no level of TLS",
        ),
        pytest.param(
            LEAST + '[relay.tls.domains]\n"*.a.test" = "none"\n',
            ["relay.tls.domains.\"*.a.test\": must be a domain name, like mail.example.org, got '*.a.test' (line 5)"],
            id="a star in the place of a dot",
        ),
        pytest.param(
            LEAST + '[relay.tls.domains]\n".a.test" = "none"\n".A.test" = "verify"\n',
            ["relay.tls.domains: '.a.test' and '.A.test' are the same domain (line 4)"],
            id="TLS rules for one domain twice",
        ),
        pytest.param(
            LEAST + '[relay.tls]\nca_file = "none.pem"\n',
            ["relay.tls.ca_file: there is no file {folder}/none.pem (line 5)"],
            id="no file of authorities",
        ),
        pytest.param(
            LEAST + '[relay]\nsmarthost = "mail.example.org:587"\nsmarthost_user = "us"\n',
            ["relay: smarthost_user and smarthost_password_file belong together: give both or none (line 4)"],
            id="a login without a password",
        ),
        pytest.param(
            LEAST + '[relay]\nsmarthost_tls = "verify"\n',
            ["relay: there is no smarthost that smarthost_user or smarthost_tls could be for (line 4)"],
            id="TLS to no smarthost",
        ),
        pytest.param(
            LEAST
            + '[relay]\nsmarthost = "mail.example.org:587"\nsmarthost_user = "us"\nsmarthost_password_file = "key.pem"\n',
            [
                'relay: smarthost_user needs smarthost_tls = "verify" or "implicit": anybody could ask for it else (line 4)'
            ],
            id="a password for whoever answers",
        ),
        pytest.param(
            LEAST + '[tls]\ncert = "cert.pem"\n',
            ["tls: cert and key belong together: give both or none (line 4)"],
            id="half a pair",
        ),
        pytest.param(
            LEAST + "[queue]\nfirst_retry = 10\nmax_retry = 5\n",
            ["queue: max_retry must not be less than first_retry (line 4)"],
            id="in the wrong order",
        ),
        pytest.param(
            LEAST + '[queue.destinations."x.test"]\nper_minute = -1\n[queue.destinations."x"]\ndeliveries = 0\n',
            [
                'queue.destinations."x.test".per_minute: must be 0 or more, got -1 (line 5)',
                "queue.destinations.x.deliveries: must be 1 or more, got 0 (line 7)",
            ],
            id="a pace that is none",
        ),
        pytest.param(
            LEAST + '[[keys.dkim]]\ndomain = "fwd.test"\nselector = ""\nkey = ""\n',
            [
                "keys.dkim[0].selector: must not be empty, got '' (line 6)",
                "keys.dkim[0].key: must name a file, got '' (line 7)",
            ],
            id="empty where something is needed",
        ),
        pytest.param(
            LEAST + ('[[keys.dkim]]\ndomain = "fwd.test"\nselector = "a"\nkey = "key.pem"\n' * 2),
            ["keys.dkim[1]: a._domainkey.fwd.test has a key already (line 8)"],
            id="two keys under one name",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\nx = ["a@x.test",\n  "b@",\n]\n',
            ["domains.\"fwd.test\".aliases.x[1]: the domain is empty, got 'b@' (line 6)"],
            id="half an address",
        ),
        pytest.param(
            LEAST + f"{D}.aliases]\nx = 3\n",
            ['domains."fwd.test".aliases.x: must be the address or addresses it leads to, or false, got 3 (line 5)'],
            id="an alias that is a number",
        ),
        pytest.param(
            LEAST + f"{D}.aliases]\nx = []\n",
            ['domains."fwd.test".aliases.x: leads nowhere: list a target, or write false to disable it (line 5)'],
            id="an alias without targets",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\n"a b" = "a@x.test"\n',
            [
                (
                    'domains."fwd.test".aliases."a b": must be what stands before the @ of an address, or "*" for all others,'
                    " got 'a b' (line 5)"
                )
            ],
            id="no local part",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\nTeam = "a@x.test"\nteam = "b@x.test"\n',
            ["domains.\"fwd.test\".aliases: 'Team' and 'team' are the same alias (line 4)"],
            id="one alias in two spellings",
        ),
        pytest.param(
            LEAST + f'{D}]\n[domains."FWD.test"]\n',
            ["domains: 'fwd.test' and 'FWD.test' are the same domain (line 4)"],
            id="one domain in two spellings",
        ),
        pytest.param(
            LEAST + '[complaints]\naddresses = ["loop@elsewhere.test"]\n',
            ["complaints.addresses[0]: loop@elsewhere.test is at no domain of ours: no complaint comes to it (line 5)"],
            id="an address for complaints that nobody can write to",
        ),
        pytest.param(
            LEAST + "[complaints]\nrefuse_at = 7\n",
            ["complaints: slow_at, one_way_at and refuse_at must not fall: each is at least the one before (line 4)"],
            id="measures out of order",
        ),
        pytest.param(
            LEAST + "[learning]\ndisable_at = 2\n",
            ["learning: disable_at must not be less than pause_at (line 4)"],
            id="disabled before it is paused",
        ),
        pytest.param(
            LEAST + "[learning.weights]\nbad-luck = 1\n",
            [
                (
                    "learning.weights.bad-luck: Input should be 'unknown-user', 'mailbox-full', 'policy', 'spam', "
                    "'authentication', 'blocked-ip', 'rate-limited', 'size', 'dns', "
                    "'tls', 'expired', 'content' or 'other', got 'bad-luck' (line 5)"
                )
            ],
            id="a reason that there is not",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\nx = "y@fwd.test"\n',
            ['domains."fwd.test".aliases.x: leads to y@fwd.test, an address of ours that leads nowhere (line 5)'],
            id="an alias that leads nowhere",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\nx = {{ targets = ["a@x.test"], owner = "gone@fwd.test" }}\n',
            ['domains."fwd.test".aliases.x.owner: gone@fwd.test is an address of ours that leads nowhere (line 5)'],
            id="an owner that leads nowhere",
        ),
        pytest.param(
            LEAST + f'{D}.bounces]\nhard = "nobody"\n',
            [
                (
                    "domains.\"fwd.test\".bounces.hard: must be 'sender', 'owner', 'both', 'digest' or 'suppress', "
                    "got 'nobody' (line 5)"
                ),
            ],
            id="a way that is none",
        ),
        pytest.param(
            LEAST + f'{D}.aliases]\nx = "y@fwd.test"\ny = "x@fwd.test"\n',
            [
                'domains."fwd.test".aliases.x: leads only in a circle (line 5)',
            ],
            id="a circle",
        ),
        pytest.param(
            LEAST + 'secret_file = "no.secret"\n',
            ["srs.secret_file: there is no file {folder}/no.secret (line 4)"],
            id="no file",
        ),
        pytest.param(
            LEAST + f'secret_file = "/{"x" * 300}"\n',
            [f"srs.secret_file: /{'x' * 199} cannot be looked for: File name too long (line 4)"],
            id="a path that no file can have",
        ),
        pytest.param("a = \n", ["is not TOML: Invalid value (at line 1, column 5)"], id="no TOML"),
        pytest.param("a = 1\na = 2\n", ["is not TOML: Cannot overwrite a value (at line 2, column 6)"], id="twice"),
    ],
)
def test_a_mistake_is_named_with_its_line(folder: Path, text: str, want: list[str]) -> None:
    assert mistakes(folder, text) == [one.replace("{folder}", str(folder)) for one in want]


@pytest.mark.parametrize(
    ("variable", "value", "want"),
    [
        ("FORWARDER_RELAY__PORT", "x", "must be a whole number, got 'x'"),
        ("FORWARDER_RELAY__PROT", "1", "there is no such setting; did you mean 'port'?"),
        ("FORWARDER_RELAI__PORT", "1", "there is no such setting; did you mean 'relay'?"),
        ("FORWARDER_LISTEN", "here", "must be an IP address and a port, like 127.0.0.1:25 or [::1]:25, got 'here'"),
        ("FORWARDER_KEYS__DKIM__7__KEY", "x", "there is no such setting"),
        ("FORWARDER_RELAY", "5", "must be a table, got '5'"),
        ("FORWARDER_HOSTNAME__X", "5", "there is no such setting"),
        (
            "FORWARDER_LISTEN",
            "[1",
            "begins like JSON and is none: Expecting ',' delimiter: line 1 column 3 (char 2)",
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(folder: Path, variable: str, value: str, want: str) -> None:
    assert mistakes(folder, EXAMPLE, {variable: value}) == [f"{variable}: {want}"]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = 'hostname = 1\nlisten = ["x"]\n[srs]\ndomain = ""\n[relay]\nport = "x"\nhold = "y"\n'

    found = mistakes(folder, text, {"FORWARDER_LIMITS__RECIPIENTS": "0"})

    assert [one.partition(":")[0] for one in found] == [
        "hostname",
        "listen[0]",
        "srs.domain",
        "relay.port",
        "relay.hold",
        "FORWARDER_LIMITS__RECIPIENTS",
    ]


def test_a_file_that_is_not_there_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"forwarder\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "forwarder.toml", {})


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "forwarder.toml"
    file.write_bytes(b'hostname = "a"\n# caf\xe9\n')

    with pytest.raises(ConfigError, match=r"is not UTF-8 \(line 2\)"):
        load(file, {})


def test_a_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "forwarder.toml"
    file.write_text("a = " + "[" * 100_000)

    with pytest.raises(ConfigError, match="is not TOML"):
        load(file, {})


# --- lines -------------------------------------------------------------------------------------------------------------

LINES = '''\
# a comment with = and [brackets]
top = 1
"quoted key" = """
[not.a.table]
x = "still the string" ""\\
"""
dotted.'k e y'."\\u00fc" = 2  # trailing
date = 1979-05-27 07:32:00
[ table . "with dot.s" ]
a = ["]", '#', [1,
  2], # comment ]
  { x = 1, y.z = "}" },
]
b = """"quoted""\"""
c = \'\'\'
[no]\'\'\'
[[array]]
x = 1
[[array]]
[array.inner]
y = 2
[[array.list]]
z = 3
last=true
'''


def test_lines_are_found_in_every_kind_of_toml() -> None:
    lines = locate(LINES)

    tomllib.loads(LINES)
    assert lines == {
        ("top",): 2,
        ("quoted key",): 3,
        ("dotted",): 7,
        ("dotted", "k e y"): 7,
        ("dotted", "k e y", "ü"): 7,
        ("date",): 8,
        ("table",): 9,
        ("table", "with dot.s"): 9,
        ("table", "with dot.s", "a"): 10,
        ("table", "with dot.s", "a", 0): 10,
        ("table", "with dot.s", "a", 1): 10,
        ("table", "with dot.s", "a", 2): 10,
        ("table", "with dot.s", "a", 2, 0): 10,
        ("table", "with dot.s", "a", 2, 1): 11,
        ("table", "with dot.s", "a", 3): 12,
        ("table", "with dot.s", "a", 3, "x"): 12,
        ("table", "with dot.s", "a", 3, "y"): 12,
        ("table", "with dot.s", "a", 3, "y", "z"): 12,
        ("table", "with dot.s", "b"): 14,
        ("table", "with dot.s", "c"): 15,
        ("array",): 17,
        ("array", 0): 17,
        ("array", 0, "x"): 18,
        ("array", 1): 19,
        ("array", 1, "inner"): 20,
        ("array", 1, "inner", "y"): 21,
        ("array", 1, "list"): 22,
        ("array", 1, "list", 0): 22,
        ("array", 1, "list", 0, "z"): 23,
        ("array", 1, "list", 0, "last"): 24,
    }


VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text("ab.\"' é[]#=", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def toml(value: object) -> str:
    """An inline value."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return quoted(value)
        case list():
            return "[\n" + ",\n".join(map(toml, value)) + "\n]"
        case dict():
            return "{" + ", ".join(f"{quoted(key)} = {toml(one)}" for key, one in value.items()) + "}"
        case _:
            raise AssertionError(value)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def paths(value: object, at: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return {at} - {()} | {path for key, one in inner for path in paths(one, (*at, key))}


@given(st.dictionaries(st.text('abc."# é', min_size=0, max_size=5), VALUES, max_size=5))
def test_every_path_of_a_document_has_a_line(document: dict[str, object]) -> None:
    text = "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in document.items())

    assert tomllib.loads(text) == document
    assert set(locate(text)) == paths(document)


@given(st.text("[]{}=\"'#.,\n abc1\\", max_size=40))
def test_whatever_tomllib_takes_can_be_located(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(locate(text)) == paths(document)

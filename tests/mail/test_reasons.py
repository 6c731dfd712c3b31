"""Why a delivery failed, and whether the address is to blame; and what a rule file may say."""

from __future__ import annotations

import pytest

from forwarder.mail.reasons import MAX_TEXT, Cause, Reason, RulesError, Stage, parse_rules, standard_rules, status_in
from tests.cost import cost_of


@pytest.mark.parametrize(
    ("status", "text", "mta", "expected"),
    [
        ("5.1.1", "550 5.1.1 No such user", None, Cause(Reason.UNKNOWN_USER, True)),
        ("4.1.1", "450 4.1.1 No such user", None, Cause(Reason.UNKNOWN_USER, False)),
        (None, "550 5.2.2 over quota", None, Cause(Reason.MAILBOX_FULL, False)),
        (None, None, None, Cause(Reason.OTHER, False)),
        ("4.7.28", "421-4.7.28 Gmail has detected an unusual rate of mail", None, Cause(Reason.RATE_LIMITED, False)),
    ],
)
def test_codes_and_words_tell_why(status: str | None, text: str | None, mta: str | None, expected: Cause) -> None:
    assert standard_rules().classify(status, text, mta) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550-5.7.26 This mail has been blocked because the sender is unauthenticated.", "authentication"),
        ("421-4.7.28 Gmail has detected an unusual rate of unsolicited mail from your IP", "rate-limited"),
        ("550-5.7.1 [192.0.2.1 12] Our system has detected that this message is\n550-5.7.1 likely unsolicited", "spam"),
        ("552 5.2.2 The recipient's inbox is out of storage space", "mailbox-full"),
        ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. (S3150).", "blocked-ip"),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "blocked-ip"),
        ("550 5.7.509 Access denied, sending domain X.TEST does not pass DMARC verification", "authentication"),
        ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "unknown-user!"),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient x@y.test not found", "unknown-user!"),
        ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", "rate-limited"),
        ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", "blocked-ip"),
        ("554 5.7.9 Message not accepted for policy reasons", "policy"),
        ("550 5.1.1 <x@y.test>: Recipient address rejected: User unknown in virtual mailbox table", "unknown-user!"),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "blocked-ip"),
        ("554 5.7.1 <x@y.test>: Relay access denied", "policy"),
        ("450 4.2.0 <x@y.test>: Recipient address rejected: Greylisted", "rate-limited"),
        ("all relevant MX records point to non-existent hosts", "dns!"),
        ("Sorry, I couldn't find any host named y.test. (#5.1.2)", "dns!"),
        ("Sorry, no mailbox here by that name. (#5.1.1)", "unknown-user!"),
        ("552 5.3.4 Message size exceeds fixed limit", "size"),
        ("retry timeout exceeded", "expired"),
        ("530 5.7.0 Must issue a STARTTLS command first", "tls"),
        ("554 5.6.0 virus infected message", "content"),
        ("521 5.3.2 host does not accept mail", "other!"),
        ("550 no", "other"),
    ],
)
def test_what_well_known_servers_say_is_understood(text: str, expected: str) -> None:
    found = standard_rules().classify(None, text)
    assert f"{found.reason}{'!' if found.hard else ''}" == expected


def test_only_what_was_refused_as_a_recipient_or_nobody_knows_where_is_hard() -> None:
    rules = standard_rules()
    for stage, hard in (
        (None, True),
        (Stage.RCPT, True),
        (Stage.MAIL, False),
        (Stage.DATA, False),
        (Stage.CONNECT, False),
    ):
        assert rules.classify("5.1.1", "550 5.1.1 user unknown", stage=stage) == Cause(Reason.UNKNOWN_USER, hard)


def test_who_is_unknown_for_days_is_unknown() -> None:
    rules = standard_rules()
    assert not rules.classify("4.1.1", "450 user unknown").hard
    assert rules.classify("4.1.1", "450 user unknown", given_up=True).hard
    assert not rules.classify("4.1.2", "450 unknown host", given_up=True).hard


def test_a_notice_is_asked_where_the_reply_says_nothing() -> None:
    rules = standard_rules()
    assert rules.classify("5.7.1", "550 no", notice="Your message looks like spam to us.").reason is Reason.SPAM
    assert rules.classify("5.7.1", "550 blocked using a list", notice="It looks like spam.").reason is Reason.BLOCKED_IP
    assert rules.classify("5.7.1", "550 no", notice="We are giving up.").reason is Reason.POLICY
    assert rules.classify(None, "550 no", notice="We are giving up.").reason is Reason.EXPIRED


def test_the_first_rule_that_matches_in_all_it_gives_decides() -> None:
    rules = parse_rules(
        """
        [[rule]]
        reason = "spam"
        status = ["5.7.*", "x.9.1"]
        mta = "Filter.test"
        [[rule]]
        reason = "size"
        code = "552"
        text = ["Too  large", "more than * octets"]
        [[rule]]
        reason = "tls"
        text = "^: yes"
        [[rule]]
        reason = "unknown-user"
        hard = true
        text = "@ is not here"
        """
    )
    assert rules.classify("5.7.1", None, "mx1.filter.TEST").reason is Reason.SPAM
    assert rules.classify("4.9.1", None, "mx1.filter.test").reason is Reason.SPAM
    assert rules.classify("5.7.1", None, "mx1.other.test").reason is Reason.OTHER
    assert rules.classify(None, "552-5.3.4 It is\n552 5.3.4 TOO\n552 5.3.4 LARGE").reason is Reason.SIZE
    assert rules.classify(None, "552 more than 10240 octets").reason is Reason.SIZE
    assert rules.classify(None, "552 more than" + "x" * 100 + "octets").reason is Reason.OTHER
    assert rules.classify(None, "550 too large").reason is Reason.OTHER
    assert rules.classify(None, "550 : yes, only here").reason is Reason.TLS
    assert rules.classify(None, "550 no: yes, only here").reason is Reason.OTHER
    assert rules.classify(None, "550 <too.large@b.test> is not here") == Cause(Reason.UNKNOWN_USER, True)


def test_rules_of_an_operator_go_before_ours() -> None:
    own = parse_rules('[[rule]]\nreason = "policy"\ntext = "no such user here, honestly"').before(standard_rules())
    assert own.classify("5.1.1", "No such user here, honestly").reason is Reason.POLICY
    assert own.classify("5.1.1", "No such user").reason is Reason.UNKNOWN_USER


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = [", "is not TOML: Invalid value"),
        ("a = " + "[" * 20000, "is not TOML"),
        ("#" + "x" * 1024 * 1024, "larger than"),
        ("rules = []", "'rules' is nothing"),
        ("rule = 1", "array of tables"),
        ('[[rule]]\nreason = "x"\ntext = "y"', "rule 1: reason: must be one of unknown-user"),
        ('[[rule]]\nreason = "spam"', "rule 1: needs status, code, mta or text"),
        ('[[rule]]\nreason = "spam"\nwhy = "y"', "rule 1: 'why' is no key"),
        ('[[rule]]\nreason = "spam"\ntext = [1]', "rule 1: text: must be a text or a list"),
        ('[[rule]]\nreason = "spam"\ntext = " "', "rule 1: text: must be a text or a list"),
        ('[[rule]]\nreason = "spam"\ntext = "' + "x" * 201 + '"', "at most 200"),
        ('[[rule]]\nreason = "spam"\ntext = "a*b*c*d"', "more than 2 gaps"),
        ('[[rule]]\nreason = "spam"\nhard = "yes"\ntext = "y"', "hard: must be true or false"),
        ('[[rule]]\nreason = "spam"\nstage = "dot"\ntext = "y"', "stage: must be one of connect, mail, rcpt, data"),
        ('[[rule]]\nreason = "spam"\nstatus = "7.1"', "status: '7.1' is not like"),
        ('[[rule]]\nreason = "spam"\ncode = "5xx"', "code: '5xx' is no reply code"),
        ('[[rule]]\nreason = "spam"\ntext = "y"\n' * 501, "501 rules: at most 500"),
    ],
)
def test_a_mistake_in_a_rule_file_is_named(text: str, said: str) -> None:
    with pytest.raises(RulesError) as raised:
        parse_rules(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.0.0 said: 550 5.01.1 no", "5.1.1"),
        ("550 #5.1.1 no", "5.1.1"),
        ("host 192.5.1.1 or 5.1.1.9", None),
        ("ends with 5.2.2.", "5.2.2"),
        ("5.0.0", "5.0.0"),
        ("554 4.4.7 expired <421 4.4.2 timed out>", "4.4.2"),
        ("", None),
    ],
)
def test_a_status_code_is_found_in_words(text: str, expected: str | None) -> None:
    assert status_in(text) == expected


@pytest.mark.parametrize("word", ["a", "550 ", "550-5.7.1 ", "@", "a@", "<", "user ", "unknown user ", " "])
def test_no_words_make_the_rules_slow(word: str) -> None:
    rules = standard_rules()
    assert cost_of(lambda number: rules.classify(None, f"{number}{word * MAX_TEXT}"), 0.1) < 0.1

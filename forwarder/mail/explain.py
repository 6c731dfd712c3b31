"""Why did each recipient of a report fail? The reply it quotes goes before its status code, its words for people come last."""

from __future__ import annotations

import re
from dataclasses import replace

from forwarder.mail.notice import Notice, peer_in, reply_in, split_words, stage_in
from forwarder.mail.reasons import Rules, status_in
from forwarder.mail.report import Action, RecipientStatus, Report

__all__ = ["explain"]

#: A status code where a server puts it in a reply (RFC 2034 section 4).
_IN_REPLY = re.compile(r"(?<![0-9.])[245][0-9][0-9][ -][#('\"]{0,2}([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_REPLY_CODE = re.compile(r"[45](?=[0-9][0-9][ -])")


def explain(report: Report, notice: Notice, rules: Rules) -> Report:
    """The report, each failed or delayed recipient with its status as exact as the report knows it, its reason, and what its
    server said where only the notice quotes it."""
    names = [(one.final_recipient or one.original_recipient or "").lower() for one in report.recipients]
    words = split_words(notice.text, names)
    recipients = tuple(
        # What has arrived did not fail.
        _explain(one, words.get(name, ""), report.reporting_mta, rules)
        if one.action in (Action.FAILED, Action.DELAYED)
        else one
        for one, name in zip(report.recipients, names, strict=True)
    )
    return replace(report, recipients=recipients)


def _explain(one: RecipientStatus, words: str, reporting_mta: str | None, rules: Rules) -> RecipientStatus:
    diagnostic = one.diagnostic or reply_in(words)
    status = _status(one, diagnostic or "", words)
    remote_mta = one.remote_mta or peer_in(words)
    hosts = " ".join(filter(None, (remote_mta, reporting_mta)))
    stage = stage_in(f"{diagnostic} {words}")
    cause = rules.classify(status, diagnostic, hosts, notice=words, stage=stage, given_up=one.action is Action.FAILED)
    return replace(
        one,
        status=status,
        diagnostic=diagnostic,
        remote_mta=remote_mta,
        reason=cause.reason,
        # What is delayed may still arrive.
        hard=cause.hard and one.action is Action.FAILED,
    )


def _status(one: RecipientStatus, diagnostic: str, words: str) -> str:
    """The most exact code. A reply's own goes before the reporter's, which often says no more than that time ran out; a code
    that contradicts the action is none. Where there is none, x.0.0 (RFC 3463 section 3.1)."""
    reply = _IN_REPLY.search(diagnostic)
    exact = f"{reply[1]}.{int(reply[2])}.{int(reply[3])}" if reply else None
    if exact is None or exact.endswith((".0.0", ".4.7")):
        exact = status_in(diagnostic)
    for code in (exact, one.status, status_in(words)):
        if code is not None and not code.endswith(".0.0") and _agrees(code, one):
            return code
    if one.status is not None:
        return one.status
    refused = _REPLY_CODE.match(diagnostic)
    permanent = one.action is Action.FAILED and (refused is None or refused[0] == "5")
    return "5.0.0" if permanent else "4.0.0"


def _agrees(code: str, one: RecipientStatus) -> bool:
    if one.status is not None and code[0] != one.status[0]:
        return False
    return code[0] == "4" if one.action is Action.DELAYED else code[0] != "2"

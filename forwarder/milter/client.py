"""What do we tell a milter next, and what does it want done? One message, from the negotiation to the end of the message.

Octets go in by ``receive_data``, what is to be written waits in ``take_output``. Every step is told, and its answer waited for,
as far as the filter wants either. The session is one message's: what a filter keeps from message to message it need not keep.

    start() ── OPTNEG ──▶ connect, helo, mail, rcpt.., data, header.., end of header, body.., end of message ──▶ Finished

``Finished`` or ``Broken`` is the last that comes. An answer other than "go on" ends it sooner: for a recipient, too, since the
message has been taken for all of them, and there is one reply to its final dot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, assert_never

from forwarder.milter.packets import (
    CHUNK,
    LEADING_SPACE,
    AddField,
    BadPacket,
    Negotiated,
    PacketParser,
    QuarantineIt,
    Response,
    SayInstead,
    Step,
    Undone,
    Word,
    offer,
    parse_response,
    render,
    strings,
)

__all__ = ["MAX_FIELDS", "MAX_RESPONSES", "Broken", "Finished", "MilterClient", "MilterMail", "Phase"]

#: Packets that one filter may send about one message, and fields among them that are looked at.
MAX_RESPONSES = 5000
MAX_FIELDS = 100

Output = bytes | memoryview


@dataclass(frozen=True, slots=True)
class MilterMail:
    """What is told: paths with their brackets, fields from the top as (name, raw value with folds and final CRLF). ``macros`` by
    step, as Sendmail names them."""

    ip: IPv4Address | IPv6Address
    name: str
    helo: str
    sender: bytes
    recipients: Sequence[bytes]
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes
    macros: dict[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


class Phase(StrEnum):
    """What is waited for."""

    NEGOTIATION = "negotiation"
    COMMAND = "command"
    BODY = "body"
    END = "end of message"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Finished:
    """``action``: ``accept``, ``reject``, ``tempfail``, ``discard`` or ``quarantine``. ``said``: its text. ``fields`` that it
    wants on the message; ``undone``: kinds of changes that it wants and that are never made."""

    action: str
    said: str = ""
    fields: tuple[tuple[str, bytes], ...] = ()
    undone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """It does not speak this protocol, or ended it. ``reason`` is a text of ours."""

    reason: str


class _Command(NamedTuple):
    """One packet, its macros before it. ``step``: ``None`` for what is always told and answered."""

    output: tuple[Output, ...]
    step: Step | None
    phase: Phase


class MilterClient:
    """One message."""

    def __init__(self, mail: MilterMail) -> None:
        self._mail = mail
        self._parser = PacketParser()
        self._output: list[Output] = []
        self._steps = 0
        self._script: Iterator[_Command] = iter(())
        self._waiting: _Command | None = None
        self._responses = 0
        self._enough_body = False
        self._quarantine: str | None = None
        self._fields: list[tuple[str, bytes]] = []
        self._undone: dict[str, None] = {}
        self.phase = Phase.NEGOTIATION

    def start(self) -> None:
        """Say what we speak."""
        self._output += offer()

    def take_output(self) -> list[Output]:
        """What is to be written now, in this order. In the body, it is called again once that is written, without waiting for an
        answer, until it is empty."""
        output, self._output = self._output, []
        if not output and self._waiting is None and self.phase not in (Phase.NEGOTIATION, Phase.OVER):
            self._advance()
            output, self._output = self._output, []
        return output

    def receive_data(self, data: bytes) -> Finished | Broken | None:
        """``None``: there is more to come. ``b""`` is the end of the stream."""
        if self.phase is Phase.OVER:
            return Broken("it is over")
        if not data:
            return self._end(Broken(f"the connection ended ({self.phase.value})"))
        try:
            for letter, rest in self._parser.feed(data):
                self._responses += 1
                if self._responses > MAX_RESPONSES:
                    raise BadPacket("more answers than any message needs")
                ended = self._respond(parse_response(letter, rest))
                if ended is not None:
                    return self._end(ended)
        except BadPacket as error:
            return self._end(Broken(str(error)))
        return None

    def _end(self, how: Finished | Broken) -> Finished | Broken:
        self.phase = Phase.OVER
        self._waiting = None
        # SMFIC_QUIT
        self._output = list(render("Q"))
        return how

    # --- what comes

    def _respond(self, response: Response) -> Finished | Broken | None:
        if self.phase is Phase.NEGOTIATION:
            return self._negotiate(response)
        match response:
            case Word():
                return self._obey(response)
            case SayInstead(code, text):
                return Finished("reject" if code >= 500 else "tempfail", f"{code} {text}")
            case Negotiated():
                raise BadPacket("a second negotiation")
            case AddField() | QuarantineIt() | Undone():
                self._note(response)
                return None
            case _:
                assert_never(response)

    def _negotiate(self, response: Response) -> Broken | None:
        if response == Undone("choose macros"):
            return None
        if not isinstance(response, Negotiated):
            raise BadPacket("no negotiation")
        # Version 2 is Sendmail 8.12's: it knows none of the steps that may be left silent.
        if not 2 <= response.version <= 6:
            return Broken(f"it speaks version {response.version}")
        self._steps = response.steps
        self._script = self._commands()
        self.phase = Phase.COMMAND
        self._advance()
        return None

    def _obey(self, word: Word) -> Finished | Broken | None:
        match word:
            case Word.PROGRESS:
                return None
            case Word.CONTINUE if self.phase is Phase.END:
                return self._taken()
            case Word.CONTINUE:
                if self._waiting is None:
                    raise BadPacket("an answer to nothing")
                self._waiting = None
                self._advance()
                return None
            case Word.SKIP:
                # SMFIR_SKIP: no more of this kind.
                self._enough_body = True
                self._waiting = None
                self._advance()
                return None
            case Word.ACCEPT:
                return self._taken()
            case Word.REJECT | Word.TEMPFAIL | Word.DISCARD:
                return Finished(word.name.lower(), undone=tuple(self._undone))
            case Word.SHUTDOWN | Word.CONNECTION_FAILED:
                return Broken("it shuts down")
            case _:
                assert_never(word)

    def _taken(self) -> Finished:
        action, said = ("accept", "") if self._quarantine is None else ("quarantine", self._quarantine)
        return Finished(action, said, tuple(self._fields), tuple(self._undone))

    def _note(self, change: AddField | QuarantineIt | Undone) -> None:
        if self.phase is not Phase.END:
            raise BadPacket("a change before the end of the message")
        match change:
            case AddField(name, value):
                if len(self._fields) < MAX_FIELDS:
                    self._fields.append((name, value))
            case QuarantineIt(reason):
                self._quarantine = reason
            case Undone(what):
                self._undone[what] = None

    # --- what goes

    def _advance(self) -> None:
        """The next command that it wants to hear. After one that it does not answer, ``take_output`` asks for the next."""
        for command in self._script:
            step = command.step
            if step is not None and self._steps & step.skip:
                continue
            if step is Step.BODY and self._enough_body:
                continue
            self.phase = command.phase
            self._output += command.output
            if step is not None and self._steps & step.silent:
                if step is Step.BODY:
                    return
                continue
            self._waiting = command
            return

    def _commands(self) -> Iterator[_Command]:
        mail = self._mail
        family = b"4" if mail.ip.version == 4 else b"6"
        connect = strings(mail.name.encode()) + family + b"\0\0" + strings(str(mail.ip).encode())
        yield self._command("C", Step.CONNECT, connect, macros="connect")
        yield self._command("H", Step.HELO, strings(mail.helo.encode("utf-8", "replace")), macros="helo")
        yield self._command("M", Step.MAIL, strings(mail.sender), macros="mail")
        for one in mail.recipients:
            yield self._command("R", Step.RCPT, strings(one), macros="rcpt")
        yield self._command("T", Step.DATA)
        for name, value in mail.fields:
            yield self._command("L", Step.HEADER, strings(name, self._value(value)))
        yield self._command("N", Step.END_OF_HEADER)
        body = memoryview(mail.body)
        for at in range(0, len(body), CHUNK):
            yield self._command("B", Step.BODY, body[at : at + CHUNK], phase=Phase.BODY)
        yield self._command("E", None, macros="end", phase=Phase.END)

    def _command(
        self,
        letter: str,
        step: Step | None,
        *parts: Output,
        macros: str = "",
        phase: Phase = Phase.COMMAND,
    ) -> _Command:
        told = self._mail.macros.get(macros, ())
        packed = strings(*(text.encode("utf-8", "replace") for pair in told for text in pair))
        before = render("D", letter.encode(), packed) if told else ()
        return _Command((*before, *render(letter, *parts)), step, phase)

    def _value(self, raw: bytes) -> bytes:
        # As Sendmail tells it: folds with LF alone, no end of line, and the space behind the colon only for who asks for it.
        value = raw.removesuffix(b"\r\n").replace(b"\r\n", b"\n")
        return value if self._steps & LEADING_SPACE else value.removeprefix(b" ")

"""The supervisor's parts by themselves; tests/faults/test_workers.py has the whole."""

from __future__ import annotations

import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forwarder.app import Passed, StartError
from forwarder.app.shares import limits_of_one, part_of
from forwarder.edge.limits import Limits
from forwarder.edge.server import turn_away
from forwarder.keys import KeyFile, generate_ed25519, load_key
from forwarder.keys.usage import Usage
from forwarder.sharedmarks import SharedMarks, marks_for
from forwarder.supervisor.channel import Channel
from forwarder.supervisor.children import fork, how_it_ended
from forwarder.supervisor.listeners import Listeners
from forwarder.supervisor.restarts import Restarts


def test_pauses_double_from_the_fifth_death_on_and_a_steady_life_ends_that() -> None:
    restarts, now, pauses = Restarts(), 1000.0, []
    for _ in range(12):
        restarts.born(now)
        now += 1
        pauses.append(restarts.pause(now))
        now += pauses[-1]
    assert pauses == [0.1] * 4 + [1, 2, 4, 8, 16, 32, 60, 60]

    restarts.born(now)
    assert restarts.pause(now + 60) == 0.1


def test_words_and_sockets_come_through_a_channel_and_its_end_is_heard() -> None:
    one, other = Channel.pair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert one.send({"do": "prepare"}, [server])
        assert one.send({"do": "commit"})
        packet = other.receive()
        assert packet is not None
        assert packet.words == {"do": "prepare"}
        assert packet.sockets[0].getsockname() == server.getsockname()
        assert not packet.sockets[0].get_inheritable()
        packet.sockets[0].close()
    second = other.receive()
    assert second is not None
    assert second == ({"do": "commit"}, [])
    with pytest.raises(BlockingIOError):
        other.receive()
    one.close()
    assert other.receive() is None
    assert not other.send({"is": "alive"})
    other.close()


@pytest.mark.parametrize(("run", "code"), [(lambda: 7, 7), (lambda: os.kill(os.getpid(), signal.SIGTERM), -15)])
def test_a_child_ends_with_what_it_returns(run, code: int) -> None:  # type: ignore[no-untyped-def]
    before = signal.getsignal(signal.SIGTERM)
    _, status = os.waitpid(fork(run, lambda: None, ()), 0)

    assert how_it_ended(status) == code
    assert signal.getsignal(signal.SIGTERM) is before


def test_each_worker_has_a_socket_of_its_own_and_what_waits_outlives_the_worker() -> None:
    listeners = Listeners(Passed(), 2, turn_away)
    listeners.adopt(listeners.open(["127.0.0.1:0"]))
    (address,) = listeners.addresses
    host, port = address.split(":")
    assert listeners.new(listeners.open(["127.0.0.1:0"])) == []
    with pytest.raises(StartError, match="Address already in use"):
        Listeners(Passed(), 2, turn_away).open([address])
    clients = [socket.create_connection((host, int(port)), 5) for _ in range(40)]
    counts = []
    for index in range(2):
        (theirs,) = listeners.row_of(index).values()
        with theirs.dup() as sock:
            sock.setblocking(False)
            counts.append(0)
            while True:
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    break
                counts[-1] += 1
    assert sum(counts) == 40
    assert min(counts) >= 5
    for one in clients:
        one.close()
    with socket.create_connection((host, int(port)), 5) as late:
        listeners.close()
        assert late.recv(100).startswith(b"421 4.3.2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 5)


def test_passed_sockets_are_found_by_address_and_never_closed_for_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        host, port = mine.getsockname()
        passed = Passed([mine])
        assert passed.unused([f"{host}:{port}"]) == []
        assert passed.unused(["127.0.0.1:9"]) == [f"{host}:{port}"]
        listeners = Listeners(passed, 3, turn_away)
        listeners.adopt(listeners.open([f"{host}:{port}"]))
        listeners.close()
        with socket.create_connection((host, port), 5):
            mine.accept()[0].close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "1"},
    ],
)
def test_sockets_for_another_process_are_not_taken(environ: dict[str, str]) -> None:
    assert Passed.from_environment(environ).unused([]) == []
    assert environ == {}


def test_limits_are_divided_and_a_message_always_fits() -> None:
    limits = limits_of_one(
        Limits(message_size=36_000_000, in_flight=96_000_000, sessions=4000, forged_reversible=10), 4
    )

    assert (limits.sessions, limits.forged_reversible, limits.in_flight) == (1000, 3, 36_000_000)
    assert limits_of_one(Limits(), 1) == Limits()
    assert [part_of(1, 8), part_of(9, 8), part_of(16, 8)] == [1, 2, 2]


def test_a_mark_is_seen_by_the_others_until_it_is_taken_away_or_its_maker_is_replaced() -> None:
    memory = marks_for(2)
    one, other = SharedMarks(memory, 0), SharedMarks(memory, 1)
    slots = one.put(["srs0=a <1@x>", "srs0=b <2@x>"])

    assert other.others_have("srs0=a <1@x>")
    assert not one.others_have("srs0=a <1@x>")
    assert not other.others_have("srs0=a <2@x>")
    one.take(slots[:1])
    assert not other.others_have("srs0=a <1@x>")
    assert other.others_have("srs0=b <2@x>")
    SharedMarks(memory, 0)
    assert not other.others_have("srs0=b <2@x>")
    assert len(one.put(map(str, range(10_000)))) < 10_000


def test_two_workers_keep_what_the_other_knows_of_the_keys(tmp_path: Path) -> None:
    keys = []
    for selector in ("a", "b"):
        generate_ed25519(tmp_path / selector)
        keys.append(load_key(KeyFile("fwd.test", selector, tmp_path / selector)))
    first, second = Usage(tmp_path / "keys.json"), Usage(tmp_path / "keys.json")
    early, late = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    first.note("dkim", keys[0], late)
    first.save()
    second.note("dkim", keys[0], early)
    second.note("dkim", keys[1], early)
    second.save()

    known = Usage(tmp_path / "keys.json")
    assert [known.last("dkim", one) for one in keys] == [late, early]

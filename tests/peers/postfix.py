"""Postfix on loopback, each instance with folders of its own: the mail system whole, and its smtp-sink."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.peers.programs import find, needs, run

__all__ = ["Dump", "Postfix", "needs_postfix", "needs_root", "postfix", "smtp_sink"]

needs_postfix = needs("postfix")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix starts as root only: run this test as root")

#: Seconds for a program to listen, which takes a tenth of one.
_START = 15

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file_prefixes = {folder}
maillog_file = {folder}/log
inet_protocols = ipv4
# Where it listens is in master.cf; an address that no interface bears by name may not stand here.
inet_interfaces = 127.0.0.1
smtp_bind_address = {host}
mynetworks =
myhostname = {hostname}
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
# Neither our server's names nor the machine's are asked for.
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
biff = no
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/tls.pem
smtpd_tls_received_header = yes
smtp_tls_security_level = encrypt
smtp_tls_loglevel = 1
"""
# Debian's has these in a chroot, where they miss the libraries' files.
_MASTER = """\
{host}:{port} inet n - n - - smtpd
pickup    unix       n - n 60  1 pickup
cleanup   unix       n - n -   0 cleanup
qmgr      unix       n - n 300 1 qmgr
tlsmgr    unix       - - n 1000? 1 tlsmgr
rewrite   unix       - - n -   - trivial-rewrite
bounce    unix       - - n -   0 bounce
defer     unix       - - n -   0 bounce
trace     unix       - - n -   0 bounce
verify    unix       - - n -   1 verify
flush     unix       n - n 1000? 0 flush
proxymap  unix       - - n -   - proxymap
smtp      unix       - - n -   - smtp
relay     unix       - - n -   - smtp
showq     unix       n - n -   - showq
error     unix       - - n -   - error
retry     unix       - - n -   - error
discard   unix       - - n -   - discard
anvil     unix       - - n -   1 anvil
scache    unix       - - n -   1 scache
postlog   unix-dgram n - n -   1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    """A running instance."""

    folder: Path

    @property
    def pid(self) -> int:
        """Of its master, whose children all others are."""
        return int((self.folder / "queue/pid/master.pid").read_text())

    @property
    def log(self) -> str:
        """What it logged so far, but for what it thinks of its folder."""
        if not (file := self.folder / "log").exists():
            return ""
        return "\n".join(one for one in file.read_text("utf-8", "replace").splitlines() if "postfix-script" not in one)


@asynccontextmanager
async def postfix(
    host: str, port: int, hostname: str, settings: Mapping[str, str], *, show_log: bool = True
) -> AsyncIterator[Postfix]:
    """Postfix at ``host:port`` while the context lasts, ``settings`` in its main.cf. A test that fails shows its log."""
    # Its programs give up root, and could not enter pytest's own folders then.
    with tempfile.TemporaryDirectory(prefix="postfix", ignore_cleanup_errors=True) as name:
        running = _write(Path(name), host, port, hostname, settings)
        code, printed = await run("postfix", "-c", name, "start")
        try:
            assert code == 0, printed
            await _listening(host, port)
            yield running
        finally:
            await run("postfix", "-c", name, "stop")
            if show_log:
                print(printed, running.log)


def _write(folder: Path, host: str, port: int, hostname: str, settings: Mapping[str, str]) -> Postfix:
    """What Postfix must find to start."""
    folder.chmod(0o755)
    for one in ("queue", "data"):
        (folder / one).mkdir()
    os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postfix").gr_gid)
    pem = folder / "tls.pem"
    trustme.CA().issue_cert(hostname).private_key_and_cert_chain_pem.write_to_path(str(pem))
    pem.chmod(0o600)
    main = _MAIN.format(folder=folder, host=host, hostname=hostname)
    # Each process of Postfix would complain of what is there twice.
    lines = [line for line in main.splitlines() if line.partition(" =")[0] not in settings]
    lines += [f"{key} = {value}" for key, value in settings.items()]
    (folder / "main.cf").write_text("\n".join(lines) + "\n")
    (folder / "master.cf").write_text(_MASTER.format(host=host, port=port))
    return Postfix(folder)


@dataclass(frozen=True)
class Dump:
    """What smtp-sink took."""

    file: Path

    @property
    def messages(self) -> list[bytes]:
        """Each with the lines that smtp-sink puts above it, its line ends LF."""
        if not self.file.exists():
            return []
        return [b"X-Client-Addr: " + one for one in self.file.read_bytes().split(b"X-Client-Addr: ")[1:]]


@asynccontextmanager
async def smtp_sink(host: str, port: int, *options: str) -> AsyncIterator[Dump]:
    """Postfix's smtp-sink at ``host:port`` while the context lasts."""
    path = find("smtp-sink")
    assert path is not None
    with tempfile.TemporaryDirectory(prefix="smtp-sink") as name:
        # It gives up root before it writes.
        os.chmod(name, 0o777)  # noqa: PTH101 - nothing to wait for
        dump = Dump(Path(name) / "dump")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        arguments = [*user, "-D", str(dump.file), *options, f"{host}:{port}", "100"]
        process = await asyncio.create_subprocess_exec(path, *arguments, stderr=asyncio.subprocess.DEVNULL)
        try:
            await _listening(host, port)
            yield dump
        finally:
            process.kill()
            await process.wait()


async def _listening(host: str, port: int) -> None:
    async with asyncio.timeout(_START):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

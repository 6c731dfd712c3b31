"""How do the parts become one program? The only room that names concrete adapters.

clock         what time it is
content       content filters, and what follows from what they say
errors        StartError: one sentence for the operator
parts         what the settings make of each part
reading       what a new configuration changes
shares        what each of several workers has of a limit
activation    sockets that were opened for us
sockets       where we listen
running       the event loop, and what interrupts it
state         the store and what it holds, for the service and for an operator's command
watchedkeys   the keys, with the look at the DNS beside them
shared        which parts outlive a reload
generation    what serves one configuration, until its last session is over
service       ``App``: start, reload, stop
"""

from __future__ import annotations

from forwarder.app.activation import Passed
from forwarder.app.clock import SystemClock
from forwarder.app.content import content_policy, content_rules, load_filter_passwords, make_filters
from forwarder.app.errors import StartError
from forwarder.app.measuring import clear_numbers
from forwarder.app.parts import (
    Material,
    key_state,
    lenient_of,
    load_keys,
    load_lanes_for,
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
    read_material,
    relay_settings,
    usable_roots,
)
from forwarder.app.reading import Load, digest_of, read_again
from forwarder.app.service import DRAIN, App, Inherited
from forwarder.app.state import State, keep_store, open_state
from forwarder.app.storeurl import store_url

__all__ = [
    "DRAIN",
    "App",
    "Inherited",
    "Load",
    "Material",
    "Passed",
    "StartError",
    "State",
    "SystemClock",
    "clear_numbers",
    "content_policy",
    "content_rules",
    "digest_of",
    "keep_store",
    "key_state",
    "lenient_of",
    "load_filter_passwords",
    "load_keys",
    "load_lanes_for",
    "load_letters",
    "load_login",
    "load_note",
    "load_rules",
    "make_filters",
    "make_key_host",
    "make_resolver",
    "make_resolvers",
    "make_sts",
    "names_of",
    "open_state",
    "policy_of",
    "read_again",
    "read_material",
    "relay_settings",
    "store_url",
    "usable_roots",
]

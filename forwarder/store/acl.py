"""What may our user do on a server? These commands, on keys with our hash tags, and nothing else.

A script that runs as this user, whoever wrote it, may call these and touch those: EVAL opens no door. The list is what the
program sends and what its scripts call; a test holds it against the source. The embedded store has the same user, so that there,
too, whatever finds its way into a command reaches no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

__all__ = ["COMMANDS", "KEYS", "USER", "acl_line", "embedded_rules"]

USER = "forwarder"
#: ``records.HASH_TAG``, and in a cluster the tags of traces (docs/decisions/0044).
KEYS = "{fwd[0-9]*}*"
#: What only our own server is asked, or what may be refused: its settings, which hold its passwords, and to write its file anew.
NOT_NEEDED = frozenset({"config", "bgrewriteaof"})
COMMANDS = (
    *("append", "del", "exists", "expire", "ttl", "get", "getex", "getrange", "mget", "set"),
    *("hdel", "hexists", "hget", "hgetall", "hincrby", "hlen", "hmget", "hset", "hstrlen", "hvals"),
    *("lpop", "lrange", "rpush"),
    *("sadd", "scard", "sismember", "smembers"),
    *("zadd", "zcard", "zrange", "zrangebyscore", "zrem", "zscore"),
    *("eval", "evalsha", "info", "role", "select", "time", "wait"),
    *("asking", "cluster|shards"),
)


def acl_line(user: str, password: bytes) -> str:
    """A line of an ACL file; behind ACL SETUSER all but its first word. The password is hashed in it."""
    known = sha256(password).hexdigest()
    return f"user {user} reset on #{known} {_RIGHTS} resetchannels -@all {_commands(COMMANDS)}"


def embedded_rules() -> str:
    """The same user's on our own server, whose socket's directory nobody else may enter: hence no password. They take nothing
    back: another release of the program may share the server, and need others."""
    return f"on nopass {_RIGHTS} resetchannels {_commands((*COMMANDS, _ITS_FILE))}"


_RIGHTS = f"~{KEYS}"
#: Its file is ours, and is written anew when room is short.
_ITS_FILE = "bgrewriteaof"


def _commands(names: Iterable[str]) -> str:
    return " ".join(f"+{one}" for one in names)

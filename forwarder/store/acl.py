"""What may our user do on a server that others use too? These commands, on keys with our hash tag, and nothing else.

A script that runs as this user, whoever wrote it, may call these and touch those: EVAL opens no door. The list is what the
program sends and what its scripts call; a test holds it against the source.
"""

from __future__ import annotations

from hashlib import sha256

from forwarder.store.records import HASH_TAG

__all__ = ["COMMANDS", "USER", "acl_line"]

USER = "forwarder"
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
    commands = " ".join(f"+{one}" for one in COMMANDS)
    known = sha256(password).hexdigest()
    return f"user {user} reset on #{known} ~{HASH_TAG.decode()}* resetchannels -@all {commands}"

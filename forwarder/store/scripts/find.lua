-- What do we know of a forwarded message?
-- KEYS: the hash of the message, then the latest of each destination that is asked about. ARGV: their fields in the hash.
-- Answer: {of this message and each destination}, {latest of each destination}, the message's only one (or nil).
local of_message, latest, only = {}, {}, false
local known = redis.pcall('HLEN', KEYS[1])
if type(known) == 'number' and known > 0 then
  if #ARGV > 0 then
    of_message = redis.call('HMGET', KEYS[1], unpack(ARGV))
  end
  if known == 1 then
    only = redis.call('HVALS', KEYS[1])[1]
  end
end
if #KEYS > 1 then
  latest = redis.call('MGET', unpack(KEYS, 2))
end
return {of_message, latest, only}

-- What do we know of a forwarded message?
-- KEYS: the hash of the message, then the latest of each destination that is asked about. ARGV: their fields in the hash.
-- Answer: {of this message and each destination}, {latest of each destination}, all of this message where nothing was in those.
local of_message, latest, rest = {}, {}, {}
local known = redis.pcall('HLEN', KEYS[1])
known = type(known) == 'number' and known or 0
if known > 0 and #ARGV > 0 then
  of_message = redis.call('HMGET', KEYS[1], unpack(ARGV))
end
if #KEYS > 1 then
  latest = redis.call('MGET', unpack(KEYS, 2))
end
local function holds_nothing(values)
  for _, one in ipairs(values) do
    if one then
      return false
    end
  end
  return true
end
if known > 0 and holds_nothing(of_message) and holds_nothing(latest) then
  rest = redis.call('HVALS', KEYS[1])
end
return {of_message, latest, rest}

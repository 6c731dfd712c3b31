#!lua
-- Keep what happened to some messages, and by what they are found.
-- KEYS: a message's list for each group, then the indexes. ARGV: seconds to keep all, groups of one message, octets of one index, how
-- many groups; then each of them, sealed, and the ids to add for each index, a space behind each.
local keep, most_groups, most_octets, lives = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 1, lives do
  if redis.call('RPUSH', KEYS[i], ARGV[4 + i]) > most_groups then
    redis.call('LPOP', KEYS[i])
  end
  redis.call('EXPIRE', KEYS[i], keep)
end
for i = lives + 1, #KEYS do
  if redis.call('APPEND', KEYS[i], ARGV[4 + i]) > most_octets then
    -- The latest half, from the start of an id on.
    local kept = redis.call('GETRANGE', KEYS[i], -math.floor(most_octets / 2), -1)
    redis.call('SET', KEYS[i], string.sub(kept, string.find(kept, ' ', 1, true) + 1))
  end
  redis.call('EXPIRE', KEYS[i], keep)
end
return 0

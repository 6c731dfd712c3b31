#!lua
-- Record how an attempt ended: fingerprints delivered, fingerprints given back, forwards to remember.
-- KEYS: delivered..., released..., then two a forward: the hash of its message, the latest of its destination.
-- ARGV: our attempt, number delivered, seconds to keep them, number released, number of forwards, seconds to keep them,
--       most destinations of one message, then two a forward: field in the hash ("" without a Message-ID), record.
-- Idempotent: it sets what is true. A delivered mark is set even where the lease ran out: delivered it is.
local mine = ARGV[1]
local delivered, keep = tonumber(ARGV[2]), ARGV[3]
local released, forwards = tonumber(ARGV[4]), tonumber(ARGV[5])
local seconds, most = ARGV[6], tonumber(ARGV[7])

for i = 1, delivered do
  redis.call('SET', KEYS[i], '\1D', 'EX', keep)
end

for i = delivered + 1, delivered + released do
  local had = redis.pcall('GET', KEYS[i])
  if type(had) == 'string' and string.sub(had, 1, 2) == '\1P' and string.sub(had, 16) == mine then
    redis.call('DEL', KEYS[i])
  end
end

for i = 0, forwards - 1 do
  local message, latest = KEYS[delivered + released + 2 * i + 1], KEYS[delivered + released + 2 * i + 2]
  remember(message, latest, ARGV[8 + 2 * i], ARGV[9 + 2 * i], seconds, most)
end
return 1

-- Count the recipients that one signature was seen for. All of a transaction are counted, or none.
-- KEYS: the signature's set. ARGV: the most it may hold, seconds to keep it, then a member for each recipient.
-- Answer: 1, or 0 (they would be too many), and whether the set was unreadable.
-- Idempotent: who was counted is not counted again. The set never holds more than ARGV[1] members.
local most, seconds = tonumber(ARGV[1]), ARGV[2]
local damaged = 0
local count = redis.pcall('SCARD', KEYS[1])
if type(count) ~= 'number' then
  redis.call('DEL', KEYS[1]) -- some other kind of value: damaged
  count, damaged = 0, 1
end
local fresh = {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 0 then
    fresh[#fresh + 1] = ARGV[i]
  end
end
if count + #fresh > most then
  return {0, damaged}
end
for _, member in ipairs(fresh) do
  redis.call('SADD', KEYS[1], member)
end
if #fresh > 0 then
  redis.call('EXPIRE', KEYS[1], seconds)
end
return {1, damaged}

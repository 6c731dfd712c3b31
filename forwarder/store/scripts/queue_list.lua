#!lua flags=no-writes
-- Items from the oldest. ARGV: "all" or "dead", where to begin, how many.
-- Answer: for each its name, record, milliseconds until due ("" not waiting), "1" under lease, octets of head and body, why dead,
-- "1" on hold, "1" given up.
local set = ARGV[1] == 'dead' and DEAD or ALL
local answer = {}
for _, item in ipairs(redis.call('ZRANGE', set, ARGV[2], ARGV[2] + ARGV[3] - 1)) do
  local facts = redis.call('HMGET', item, 'v', 'd', 'b', 'l', 'r', 'p', 'g')
  local due = facts[2] and redis.call('ZSCORE', facts[2], item)
  if due then
    due = string.format('%.0f', math.max(tonumber(due), tonumber(redis.call('HGET', QUIET, facts[2]) or '0')) - now)
  end
  local size = redis.call('HSTRLEN', item, 'h') + (facts[3] and redis.call('HSTRLEN', facts[3], 'o') or 0)
  answer[#answer + 1] = { item, facts[1] or '', due or '', facts[4] ~= '' and '1' or '', size, facts[5] or '', facts[6] or '', facts[7] or '' }
end
return answer

#!lua flags=no-writes
-- Items from the oldest. ARGV: "all" or "dead", where to begin, how many.
-- Answer: for each its name, record, milliseconds until due ("" not waiting), "1" under lease, octets of head and body, why dead,
-- "1" on hold, "1" given up.
local set = ARGV[1] == 'dead' and DEAD or ALL
local answer = {}
for _, item in ipairs(redis.call('ZRANGE', set, ARGV[2], ARGV[2] + ARGV[3] - 1)) do
  local facts = ours(item) and redis.call('HMGET', item, 'v', 'd', 'b', 'l', 'r', 'p', 'g') or {}
  local due = ours(facts[2]) and redis.call('ZSCORE', facts[2], item)
  if due then
    due = string.format('%.0f', math.max(tonumber(due), number(redis.call('HGET', QUIET, facts[2]))) - now)
  end
  local size = (ours(item) and redis.call('HSTRLEN', item, 'h') or 0) + (ours(facts[3]) and redis.call('HSTRLEN', facts[3], 'o') or 0)
  answer[#answer + 1] = { item, facts[1] or '', due or '', (facts[4] or '') ~= '' and '1' or '', size, facts[5] or '', facts[6] or '', facts[7] or '' }
end
return answer

#!lua flags=allow-oom
-- Items whole, to be carried away. ARGV: lease ("": they are only looked at), seconds of it, most octets of bodies, items.
-- Answer: for each, as far as the octets go, its name, record, head, body, "1" under another lease, milliseconds until due (""
-- not waiting), under how many leases a dot was marked, why dead, milliseconds since then, "1" on hold, "1" given up. Not among them:
-- what is not there. Idempotent: who has the lease is given the item again.
local lease, seconds, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer, octets = {}, 0
for i = 4, #ARGV do
  local item = ARGV[i]
  local facts = redis.call('HMGET', item, 'v', 'h', 'b', 'l', 'x', 'r', 'p', 'g', 'd')
  if octets >= most then
    break
  end
  if facts[4] then
    local body = ours(facts[3]) and redis.call('HGET', facts[3], 'o')
    local busy = facts[4] ~= '' and facts[4] ~= lease
    local destination = ours(facts[9])
    local due = destination and redis.call('ZSCORE', destination, item)
    due = due and string.format('%.0f', math.max(0, tonumber(due) - now)) or ''
    local died = redis.call('ZSCORE', DEAD, item)
    died = died and string.format('%.0f', now - tonumber(died)) or ''
    if lease ~= '' and not busy and destination then
      lease_out(item, destination, lease, seconds)
      schedule(destination)
    end
    answer[#answer + 1] = { item, facts[1] or '', facts[2] or '', body or '', busy and '1' or '', due, facts[5] or '0',
      facts[6] or '', died, facts[7] or '', facts[8] or '' }
    octets = octets + #(body or '')
  end
end
return answer

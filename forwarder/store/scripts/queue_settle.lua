#!lua flags=allow-oom
-- An attempt ended. ARGV: item, lease, record of what is left ("" nothing), seconds until that is due, seconds to keep the
-- ledger's marks, what to remember (see below), then reports as items, then dead letters as items and the reason of each.
-- Answer: 1, or 0 when the lease is not ours: then nothing was changed but what is remembered. Idempotent.
local item, lease, left, delay, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
-- How many forwards, seconds to keep them, most destinations of one message; of each the two names, field and record.
local forwards, seconds, most = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
for i = 0, forwards - 1 do
  -- Whoever has the lease now: delivered it is.
  remember(ARGV[9 + 4 * i], ARGV[10 + 4 * i], ARGV[11 + 4 * i], ARGV[12 + 4 * i], seconds, most)
end
if redis.call('HGET', item, 'l') ~= lease or lease == '' then
  return was_done_by(item, lease) and 1 or 0
end
if left == '' then
  remove(item, lease)
else
  local destination = lease_in(item)
  redis.call('HSET', item, 'v', left, 'x', '0', 's', lease)
  if destination then
    due_at(item, destination, now + delay * 1000)
    schedule(destination)
  else
    bury(item, 'the name of its next hop was damaged in the store', lease)
  end
end
local _, reports, behind = read_items(9 + 4 * forwards)
for _, one in ipairs(reports) do
  if not is_known(one.name) then
    add(one, keep)
    wait_until(one.name, one.destination, now)
    schedule(one.destination)
  end
end
local _, dead, reasons = read_items(behind)
for i, one in ipairs(dead) do
  if not is_known(one.name) then
    add(one, keep)
    bury(one.name, ARGV[reasons + i - 1], lease)
  end
end
return 1

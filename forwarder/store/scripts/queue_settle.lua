#!lua flags=allow-oom
-- An attempt ended. ARGV: item, lease, record of what is left ("" nothing), seconds until that is due, seconds to keep the
-- ledger's marks, then reports as items, then dead letters as items and the reason of each. Answer: 1, or 0 when the lease is not
-- ours: nothing was changed. Idempotent.
local item, lease, left, delay, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if redis.call('HGET', item, 'l') ~= lease or lease == '' then
  return was_done_by(item, lease) and 1 or 0
end
if left == '' then
  remove(item, lease)
else
  local destination = lease_in(item)
  redis.call('HSET', item, 'v', left, 'x', '0', 's', lease)
  due_at(item, destination, now + delay * 1000)
  schedule(destination)
end
local _, reports, behind = read_items(6)
for _, one in ipairs(reports) do
  if not is_known(one.name) then
    add(one, keep)
    due_at(one.name, one.destination, now)
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

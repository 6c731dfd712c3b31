#!lua flags=allow-oom
-- A dead letter: kept, and nobody's turn. ARGV: item, lease, reason. Answer: 1, or 0 when the lease is not ours. Idempotent.
local item, lease = ARGV[1], ARGV[2]
local holder = ours(item) and redis.call('HGET', item, 'l')
if holder ~= lease or lease == '' then
  return was_done_by(item, lease) and 1 or 0
end
local destination = lease_in(item)
bury(item, ARGV[3], lease)
if destination then
  schedule(destination)
end
return 1

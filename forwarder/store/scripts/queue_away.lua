#!lua flags=allow-oom
-- Items were carried away, and are on another disk. ARGV: lease, seconds that the ledger's marks are kept, items.
-- Answer: 1 for each that is gone, 0 for each that the lease had lost: it stays. Idempotent.
-- Their marks stay, so that a sender's retry makes no second copy; that they are its own is remembered for when it comes back.
local lease, keep = ARGV[1], ARGV[2]
local answer = {}
for i = 3, #ARGV do
  local item = ARGV[i]
  local away = carried_away(item)
  if redis.call('HGET', item, 'l') == lease and lease ~= '' then
    remove(item, lease)
    redis.call('DEL', tombstone(item))
    redis.call('SET', away, lease, 'EX', keep)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = redis.call('GET', away) == lease and 1 or 0
  end
end
return answer

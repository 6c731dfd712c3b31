-- Claim fingerprints for an attempt, or say who has them.
-- KEYS: one a fingerprint. ARGV: our mark (version, "P", attempt), seconds of lease.
-- Answer, a number a key: 0 ours now, 1 another attempt has it, 2 delivered, 3 was unreadable, ours now.
-- Idempotent: the attempt that has a fingerprint claims it again and is told 0.
local mine, lease = ARGV[1], ARGV[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local had = redis.pcall('SET', key, mine, 'NX', 'GET', 'EX', lease)
  if not had then
    answer[i] = 0
  elseif had == '\1D' then
    answer[i] = 2
  elseif had == mine then
    redis.call('EXPIRE', key, lease)
    answer[i] = 0
  elseif type(had) == 'string' and #had > 2 and string.sub(had, 1, 2) == '\1P' then
    answer[i] = 1
  else
    redis.call('SET', key, mine, 'EX', lease)
    answer[i] = 3
  end
end
return answer

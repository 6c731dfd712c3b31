-- Claim fingerprints for an attempt, or say who has them.
-- KEYS: one a fingerprint. ARGV: our mark's beginning (version, "P"), our attempt, seconds of lease, seconds to keep the mark.
-- A mark is its beginning, the end of its lease (13 digits, milliseconds of the store's clock) and its attempt. It outlives its
-- lease, so that who takes it over knows that an attempt began and nobody knows how it ended.
-- Answer, a number a key: 0 ours now, 1 another attempt has it, 2 delivered, 3 was unreadable, ours now, 4 was left behind, ours now.
-- Idempotent: the attempt that has a fingerprint claims it again, is told 0, and has a new lease.
local begin, attempt, keep = ARGV[1], ARGV[2], ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local mine = begin .. string.format('%013.0f', now + tonumber(ARGV[3]) * 1000) .. attempt
local answer = {}
for i, key in ipairs(KEYS) do
  local had = redis.pcall('SET', key, mine, 'NX', 'GET', 'EX', keep)
  if not had then
    answer[i] = 0
  elseif had == '\1D' then
    answer[i] = 2
  else
    local ends = type(had) == 'string' and string.sub(had, 1, 2) == begin and tonumber(string.match(had, '^..(%d%d%d%d%d%d%d%d%d%d%d%d%d).'))
    if not ends then
      answer[i] = 3
    elseif string.sub(had, 16) == attempt then
      answer[i] = 0
    elseif ends > now then
      answer[i] = 1
    else
      answer[i] = 4
    end
    if answer[i] ~= 1 then
      redis.call('SET', key, mine, 'EX', keep)
    end
  end
end
return answer

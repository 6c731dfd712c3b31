-- Claim fingerprints for an attempt, or say who has them.
-- KEYS: what is told to be under way, one a fingerprint, then one a rate. ARGV: our mark's beginning (version, "P"), our attempt,
-- seconds of lease, seconds to keep the mark, number of fingerprints, number of what is told, then two a rate (see rates.lua).
-- A mark is its beginning, the end of its lease (13 digits, milliseconds of the store's clock) and its attempt. It outlives its
-- lease, so that who takes it over knows that an attempt began and nobody knows how it ended.
-- Answer, a number a key: 0 ours now, 1 another attempt has it, 2 delivered, 3 was unreadable, ours now, 4 was left behind, ours now.
-- Where something becomes ours that was not, the rates are charged. One of them over: nothing is claimed, and the answer is -1, the
-- number of the rate, and microseconds to wait.
-- Idempotent: the attempt that has a fingerprint claims it again, is told 0, has a new lease, and is not charged.
local begin, attempt, keep, fingerprints, told = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local mine = begin .. string.format('%013.0f', now + tonumber(ARGV[3]) * 1000) .. attempt
local answer, ours, before, is_ours = {}, {}, {}, false
for i = 1, fingerprints do
  local key = KEYS[told + i]
  local had = redis.pcall('SET', key, mine, 'NX', 'GET', 'EX', keep)
  if not had then
    answer[i] = 0
    ours[#ours + 1], before[#before + 1] = key, false
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
    if answer[i] >= 3 then
      ours[#ours + 1], before[#before + 1] = key, had
    end
  end
  is_ours = is_ours or answer[i] ~= 1 and answer[i] ~= 2
end
if #KEYS > told + fingerprints and #ours > 0 then
  local over, wait = charge(told + fingerprints + 1, 7, clock)
  if over then
    for i, key in ipairs(ours) do
      if type(before[i]) == 'string' then
        redis.call('SET', key, before[i], 'EX', keep)
      else
        redis.call('DEL', key)
      end
    end
    return {-1, over, wait}
  end
end
if is_ours then
  for i = 1, told do
    redis.call('SET', KEYS[i], '\1', 'EX', ARGV[3])
  end
end
return answer

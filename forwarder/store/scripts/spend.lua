-- Take one from every budget, or from none.
-- KEYS: one a budget. ARGV: the limit of each, then the seconds after which a budget begins anew.
-- Answer: 1 or 0 (one of them is used up), and whether a count was unreadable.
local window = ARGV[#KEYS + 1]
local counts, damaged = {}, 0
for i, key in ipairs(KEYS) do
  local had = redis.pcall('GET', key)
  local digits = type(had) == 'string' and #had < 10 and string.match(had, '^\1(%d+)$')
  if had and not digits then
    damaged = 1
  end
  counts[i] = tonumber(digits or 0)
  if counts[i] >= tonumber(ARGV[i]) then
    return {0, damaged}
  end
end
for i, key in ipairs(KEYS) do
  if counts[i] == 0 then
    redis.call('SET', key, '\1' .. 1, 'EX', window)
  else
    redis.call('SET', key, '\1' .. string.format('%d', counts[i] + 1), 'KEEPTTL')
  end
end
return {1, damaged}

-- Give one back to every budget that is not full. KEYS: one a budget.
for _, key in ipairs(KEYS) do
  local had = redis.pcall('GET', key)
  local digits = type(had) == 'string' and #had < 10 and string.match(had, '^\1(%d+)$')
  local count = tonumber(digits or 0)
  if count > 1 then
    redis.call('SET', key, '\1' .. string.format('%d', count - 1), 'KEEPTTL')
  elseif had then
    redis.call('DEL', key)
  end
end
return 1

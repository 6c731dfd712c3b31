-- Take from every rate, or from none (the "generic cell rate algorithm"). A rate is kept as the time at which all that was taken from
-- it has come back, in microseconds of the store's clock, and forgotten then.
-- KEYS from `first` on: one a rate. ARGV from `at` on, two a rate: what is taken, the most that may be out at once; both microseconds.
-- Returns nothing, or which rate has to be waited for the longest (1 is the first), and for how long.
local function charge(first, at, clock)
  local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local back, over, longest = {}, nil, 0
  for i = first, #KEYS do
    local takes, most = tonumber(ARGV[at + 2 * (i - first)]), tonumber(ARGV[at + 2 * (i - first) + 1])
    local had = redis.pcall('GET', KEYS[i])
    local digits = type(had) == 'string' and #had < 18 and string.match(had, '^\1(%d+)$')
    -- A rate that was lowered, or a clock that was put back, keeps nobody waiting for longer than a full rate does.
    back[i] = math.min(math.max(tonumber(digits or 0), now), now + most) + takes
    local wait = back[i] - now - most
    if wait > longest then
      over, longest = i - first + 1, wait
    end
  end
  if over then
    return over, longest
  end
  for i = first, #KEYS do
    redis.call('SET', KEYS[i], '\1' .. string.format('%.0f', back[i]), 'PX', string.format('%.0f', math.ceil((back[i] - now) / 1000)))
  end
end

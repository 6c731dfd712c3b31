-- What a bounce will be matched against. message: the hash of its message, with `field` for the destination ("" without a
-- Message-ID), at most `most` of them; latest: the newest of this destination. Idempotent.
local function remember(message, latest, field, record, seconds, most)
  if field ~= '' then
    local known = redis.pcall('HLEN', message)
    if type(known) ~= 'number' then
      redis.call('DEL', message) -- some other kind of value: damaged
      known = 0
    end
    if known < most or redis.call('HEXISTS', message, field) == 1 then
      redis.call('HSET', message, field, record)
      redis.call('EXPIRE', message, seconds)
    end
  end
  redis.call('SET', latest, record, 'EX', seconds)
end

-- The store's salt; ours becomes it where there is none yet. With a salt the day begins since which the store remembers.
-- KEYS: of the salt, of that day. ARGV: our salt, seconds until an unused one expires.
local salt = redis.pcall('GET', KEYS[1])
local today = '\1' .. string.format('%d', math.floor(redis.call('TIME')[1] / 86400))
if type(salt) ~= 'string' then
  salt = ARGV[1]
  redis.call('SET', KEYS[1], salt, 'EX', ARGV[2])
  redis.call('SET', KEYS[2], today, 'EX', ARGV[2])
else
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], today, 'EX', ARGV[2], 'NX')
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return salt

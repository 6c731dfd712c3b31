-- The store's salt; ours becomes it where there is none yet. KEYS: its key. ARGV: ours, seconds until an unused one expires.
local salt = redis.pcall('GET', KEYS[1])
if type(salt) ~= 'string' then
  salt = ARGV[1]
  redis.call('SET', KEYS[1], salt, 'EX', ARGV[2])
else
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return salt

#!lua flags=allow-oom
-- finish.lua: the rebuild is whole; the lane may be used from here on.
--
-- KEYS     lane
-- ARGV     epoch, fence, log time
-- Returns  { "OK" } | { "FENCED", epoch }
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'building')
if lane[1] ~= ARGV[1] or not lane[2] then
  return { 'FENCED', lane[1] or '-1' }
end
redis.call('HSET', KEYS[1], 'fence', ARGV[2], 'log_time', ARGV[3])
redis.call('HDEL', KEYS[1], 'building')
return { 'OK' }

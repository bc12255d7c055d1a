#!lua flags=allow-oom
-- finish.lua: the rebuild is whole; the lane may be used from here on.
--
-- KEYS     lane
-- ARGV     epoch, fence, log time, chunks loaded, holds loaded
-- Returns  { "OK" } | { "FENCED", epoch }
-- A Redis that an older copy was restored into during the rebuild has the mark, but not every chunk.
-- How many holds were loaded is noted, and not how many are there: so apply sees also one that went meanwhile.
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'building', 'chunks')
if lane[1] ~= ARGV[1] or not lane[2] or (lane[3] or '0') ~= ARGV[4] then
  return { 'FENCED', lane[1] or '-1' }
end
redis.call('HSET', KEYS[1], 'fence', ARGV[2], 'log_time', ARGV[3], 'holds', ARGV[5])
redis.call('HDEL', KEYS[1], 'building', 'chunks')
return { 'OK' }

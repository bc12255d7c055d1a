#!lua flags=allow-oom
-- begin.lua: start to rebuild the lane in a new generation, so that nothing of the old one survives.
--
-- KEYS     lane
-- ARGV     epoch, which names the generation; layout of the values that will be in it
-- Returns  { "OK" } | { "NEWER", epoch }
local owner = redis.call('HGET', KEYS[1], 'epoch')
if owner and tonumber(owner) >= tonumber(ARGV[1]) then
  return { 'NEWER', owner }
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[1], 'layout', ARGV[2], 'building', '1')
return { 'OK' }

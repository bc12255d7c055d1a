#!lua flags=allow-oom
-- load.lua: write one chunk of a rebuild.
--
-- KEYS     lane; the written keys are of its slot
-- ARGV     epoch, writes (MessagePack: arrays of a command's name and arguments)
-- Returns  { "OK" } | { "FENCED", epoch }
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'building')
if lane[1] ~= ARGV[1] or not lane[2] then
  return { 'FENCED', lane[1] or '-1' }
end
for _, write in ipairs(cmsgpack.unpack(ARGV[2])) do
  redis.call(unpack(write))
end
redis.call('HINCRBY', KEYS[1], 'chunks', 1)
return { 'OK' }

#!lua flags=allow-oom
-- drop.lua: remove keys of older generations.
--
-- KEYS     lane
-- ARGV     epoch, then keys of this lane
-- Returns  { "OK", removed } | { "FENCED", epoch }
-- A key counts as old only if the generation in its name is below the lane's own.
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if lane[1] ~= ARGV[1] then
  return { 'FENCED', lane[1] or '-1' }
end
local base, own, removed = string.sub(KEYS[1], 1, -5), tonumber(lane[2]), 0
for i = 2, #ARGV do
  local key = ARGV[i]
  local generation = string.match(string.sub(key, #base + 1), '^(%d+):')
  if string.sub(key, 1, #base) == base and generation and tonumber(generation) < own then
    removed = removed + redis.call('UNLINK', key)
  end
end
return { 'OK', removed }

#!lua
-- claim.lua: take the lane as it is, or say why it must be rebuilt.
--
-- KEYS     lane
-- ARGV     epoch, last valid command offset, epoch of the last valid decision, end of the commands, layout
-- Returns  { "OK", fence, generation } | { "REFUSED", why } | { "NEWER", epoch }
-- The lane is sound only if it is whole, holds every valid decision, and was last owned by whoever made the last one:
-- a Redis that came back with older data, or a replica that lags, fails one of these.
local epoch, decided, decision_epoch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'fence', 'building', 'layout')

if not lane[1] then
  return { 'REFUSED', 'the lane is not there' }
end
local owner, fence = tonumber(lane[1]), tonumber(lane[3] or '-2')
if owner >= epoch then
  return { 'NEWER', lane[1] }
end
if lane[4] then
  return { 'REFUSED', 'the lane was left half-way' }
end
if lane[5] ~= ARGV[5] then
  return { 'REFUSED', 'the lane was written by another version' }
end
if fence < decided then
  return { 'REFUSED', 'the lane is behind the log' }
end
if fence >= tonumber(ARGV[4]) then
  return { 'REFUSED', 'the lane has decided commands that do not exist: it belongs to another log' }
end
if owner < decision_epoch then
  return { 'REFUSED', 'the lane was last owned before the last decision was made' }
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return { 'OK', lane[3], lane[2] }

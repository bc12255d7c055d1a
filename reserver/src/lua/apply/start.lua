#!lua flags=allow-oom
-- apply: decide a batch of commands of one lane, or say why this owner may not. One script, in the pieces and the order
-- that `scripts.rs` names: start; stock, holds, memory, requests (what is read, each once); reserve, carts, steps, shelf
-- (what is decided); outcome (reads and decides); write.
--
-- KEYS     lane; the other keys of its slot are derived from it (schemas/src/keys.rs)
-- ARGV     epoch, batch (MessagePack): { previous, commands, trim, busy, remember_ms, max_hold_ms, relay_ms, requests, request_ms }
--          a command: { kind, offset, timestamp, hash, tenant, source, source_time, ... by kind } (pack/batch.rs)
--          requests: by command, what its request is remembered by; '' where it names none
-- Returns  { "OK", outcome, ... } | { "FENCED", epoch } | { "GAP", fence } | { "DAMAGED", what }
-- Replay   an offset at or below the fence gets the outcome it got the first time, and moves nothing.
--
-- Shape: unpack, fence, read and decide, write, remember, reply. Nothing that can fail comes after the first write; a
-- script error rolls nothing back, so the lane is marked `building` while it is written.
--
-- What a command costs is mostly Lua's strings and tables, and calls of Redis: so several values are packed in one call,
-- what only Rust looks into passes as it came, and a structure is read and written by one call for all commands. A batch
-- has at most 128 commands and 1,000 lines, which `unpack` takes at once.
local batch = cmsgpack.unpack(ARGV[2])
local previous, commands, trim, busy, remember_ms, max_hold_ms, relay_ms, requests, request_ms = unpack(batch)
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'fence', 'building', 'log_time', 'holds')
if lane[1] ~= ARGV[1] or lane[4] then
  return { 'FENCED', lane[1] or '-1' }
end
local fence, log_time, holds_before = tonumber(lane[3]), tonumber(lane[5]), tonumber(lane[6])
local base = string.sub(KEYS[1], 1, -5) .. lane[2] .. ':'
local journal_key, skus_key, holds_key, due_key = base .. 'journal', base .. 'skus', base .. 'holds', base .. 'due'
local forget_key, parts_key = base .. 'forget', base .. 'parts'

local damaged = nil
local function damage(what)
  damaged = what
  error('damaged')
end

-- A number as Redis and names have it: `..` rounds above 10^14, and Redis' own way is slower.
local format = string.format
local function int(number)
  return format('%d', number)
end

-- Values that are packed already, as one array.
local function packed_array(values)
  local count = #values
  local head = count < 16 and string.char(144 + count) or '\220' .. string.char(math.floor(count / 256), count % 256)
  return head .. table.concat(values)
end

local function refused(reason)
  return { kind = 'refused', reason = reason }
end

-- How a command of each kind is decided: decide[kind](command, now) returns its outcome.
local decide = {}

-- Requests that had an outcome which leaves no trace: a record that a producer wrote twice gets no second one
-- (domain/src/request.rs). Asked before a command is decided, and told afterwards.
--
-- They are hashes of request -> log time, one for each stretch of log time of `request_ms` (schemas/src/keys.rs): those that are
-- remembered are in the current one and in the one before, and what is older is dropped as a whole.
--
-- Outcomes that leave no trace, reasons that are no outcome, and commands that are not known by their request.
local ENDS_REQUEST = { refused = true, rejected = true, pending = true, began = true, aborted = true }
local FLEETING = { busy = true, stale = true, already_applied = true }
local NAMED_OTHERWISE = { relay = true, relay_done = true, relay_failed = true, follow = true, forward = true, refuse = true,
  skip = true }
-- By request; and those of this batch by the hash's number, as HSET takes them.
local ended, new_ended = {}, {}

local function stretch_of(time)
  return math.floor(time / request_ms)
end

local function requests_key(stretch)
  return base .. 'requests:' .. int(stretch)
end

local first_stretch = stretch_of(log_time)

local function read_ended()
  if #requests == 0 then
    return
  end
  for stretch = first_stretch - 1, first_stretch do
    for i, at in ipairs(redis.call('HMGET', requests_key(stretch), unpack(requests))) do
      if at then
        ended[requests[i]] = tonumber(at)
      end
    end
  end
end

-- What was refused stays refused.
local function repeated(c, request, now)
  local at = ended[request]
  if not at or at + request_ms <= now or NAMED_OTHERWISE[c[1]] then
    return nil
  elseif c[1] == 'reserve' then
    local _, known = hold_of(c[8], now)
    if known then
      return nil
    end
  end
  return refused('already_applied')
end

local function end_request(c, outcome, request, now)
  if request == '' or not ENDS_REQUEST[outcome.kind] or FLEETING[outcome.reason] then
    return
  elseif outcome.kind == 'rejected' and c[1] ~= 'reserve' then
    return -- Remembered since it was pending.
  end
  ended[request] = now
  local stretch = stretch_of(now)
  local pairs_of = new_ended[stretch] or {}
  new_ended[stretch] = pairs_of
  pairs_of[#pairs_of + 1], pairs_of[#pairs_of + 2] = request, int(now)
end

-- Writes; `log_time` is the last command's now.
local function remember_requests()
  local oldest = stretch_of(log_time) - 1
  for stretch, pairs_of in pairs(new_ended) do
    if stretch >= oldest then
      redis.call('HSET', requests_key(stretch), unpack(pairs_of))
    end
  end
  for stretch = first_stretch - 1, math.min(first_stretch, oldest - 1) do
    redis.call('UNLINK', requests_key(stretch))
  end
end

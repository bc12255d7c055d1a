-- Reads what the batch needs and decides it, command by command; each outcome as pack/outcome.rs reads it. Behind all that
-- decides; nothing has been written when it is done.

local function replay(c)
  local entry = redis.call('HGET', journal_key, int(c[2]))
  if not entry then
    damage('the journal has no entry of ' .. int(c[2]))
  end
  -- Behind the array's head: see pack_outcome.
  local _, _, _, after, hash = cmsgpack.unpack_limit(entry, 4, 1)
  if after ~= previous and hash == c[4] then
    -- Somebody closed a hole before this very record and nobody heard of either.
    damage(int(c[2]) .. ' was decided after ' .. int(after) .. ', where the log has no command')
  end
  return entry
end

local NONE = '\144'
local function pack_outcome(outcome, now, hash)
  local hold, part = outcome.hold, outcome.part
  return '\154' .. cmsgpack.pack(outcome.kind, now, previous, hash, outcome.number or 0, outcome.reason or '')
    .. (outcome.lines and packed_array(outcome.lines) or NONE)
    .. (hold and '\145' .. (outcome.packed or pack_hold(hold)) or NONE)
    .. (outcome.shortages and cmsgpack.pack(outcome.shortages) or NONE)
    .. (part and '\145' .. cmsgpack.pack(part) or NONE)
end

-- Read and decide.
local outcomes, journal = {}, {}
local gap, fence_before = false, fence
local decided, failure = pcall(function()
  count_holds()
  read_ahead()
  read_ended()
  for i, c in ipairs(commands) do
    if c[2] <= fence_before then
      outcomes[i] = replay(c)
    elseif previous ~= fence then
      if previous < fence then
        -- Somebody closed a hole and nobody heard of it; then a command came, and nothing can follow both.
        damage('the lane has decided ' .. int(fence) .. ', where the log has no command')
      end
      gap = true
      return
    else
      local now = math.max(c[3], log_time)
      local outcome = repeated(c, requests[i], now) or once(c, now) or decide[c[1]](c, now)
      end_request(c, outcome, requests[i], now)
      local packed = pack_outcome(outcome, now, c[4])
      outcomes[i] = packed
      journal[#journal + 1], journal[#journal + 2] = int(c[2]), packed
      fence, log_time = c[2], now
    end
    previous = c[2]
  end
end)
if damaged then
  redis.call('HSET', KEYS[1], 'building', '1')
  return { 'DAMAGED', damaged }
elseif not decided then
  error(failure)
elseif gap then
  return { 'GAP', lane[3] }
end

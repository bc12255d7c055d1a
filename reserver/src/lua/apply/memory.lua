-- What was applied once, and what may be forgotten when: asked before a command is decided, written by write.
local remembered, forget = {}, {}

local function memory_of(suffix, now)
  local memory = remembered[suffix]
  if memory == nil then
    local packed = redis.call('GET', base .. suffix)
    memory = packed and cmsgpack.unpack(packed) or false
    remembered[suffix] = memory
  end
  if memory and memory[2] + remember_ms <= now then
    return nil
  end
  return memory or nil
end

local function forget_at(time, suffix)
  forget[#forget + 1] = cmsgpack.pack({ time, suffix })
end

local function remember(suffix, fingerprint, now)
  remembered[suffix] = { fingerprint, now, new = true }
  forget_at(now + remember_ms, suffix)
end

-- A forwarded command is applied once per source, and not at all when it is older than what lanes remember.
local function once(c, now)
  if c[6] == '' then
    return nil
  elseif c[7] + remember_ms <= now then
    return refused('stale')
  end
  local suffix = 'source:' .. c[6]
  if memory_of(suffix, now) then
    return refused('already_applied')
  end
  remember(suffix, '', now)
end

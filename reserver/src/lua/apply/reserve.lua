-- Reserve: what may be held, and what is short. Parts of carts ask here too.
--
-- The command: { ..., hold, user, ttl, rest, own lines, policy, where the terms start in rest, cart }; no policy is all or
-- nothing; a cart has lines in other lanes too.

-- Units of carts that are not decided, by SKU: until the relay's deadline; false: decided.
local relayed = {}

-- Notes units of a cart that is not decided, until the relay's deadline; without one, they are decided.
local function relay_units(id, tenant, own, deadline)
  for _, l in ipairs(own) do
    local name = tenant .. '/' .. l[1]
    relayed[name] = relayed[name] or {}
    relayed[name][int(l[2]) .. ':' .. id] = deadline or false
  end
end

-- Whether so many units of a SKU are in carts that may not be decided yet.
local function may_come_back(name, units, now)
  local changed, found = relayed[name] or {}, 0
  local known = redis.call('ZRANGEBYSCORE', base .. 'relayed:' .. name, '(' .. int(now), '+inf', 'LIMIT', 0, 200)
  for _, member in ipairs(known) do
    if changed[member] == nil then
      found = found + tonumber(string.match(member, '^%d+'))
    end
  end
  for member, deadline in pairs(changed) do
    if deadline and deadline > now then
      found = found + tonumber(string.match(member, '^%d+'))
    end
  end
  return found >= units
end

-- A part's name, of its hold's id and its attempt (schemas/src/keys.rs).
local function part_name(id, attempt)
  local hex = string.gsub(id, '.', function(byte)
    return format('%02x', string.byte(byte))
  end)
  return string.gsub(hex, '^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)', '%1-%2-%3-%4-') .. '/' .. int(attempt)
end

-- How many units of a line a user may have now, and why not more.
local function obtainable(stock, user, units)
  local counted = units_of(stock, user)
  local left = math.max(0, stock.on_hand - stock.held - stock.allocated - stock.safety)
  if not stock.known then
    return 0, 'unknown_sku'
  elseif stock.max and counted + units > stock.max then
    return math.min(left, math.max(0, stock.max - counted)), 'limit_exceeded'
  elseif left < units then
    return left, 'insufficient_stock'
  end
  return units, nil
end

-- Why some lines cannot be held, and every short one of them; nil where they can.
local SEVERITY = { insufficient_stock = 1, limit_exceeded = 2, unknown_sku = 3 }
local function shortages_of(tenant, user, own, now)
  local reason, shortages = nil, {}
  for _, l in ipairs(own) do
    local stock = stock_of(tenant, l[1])
    local units, why = obtainable(stock, user, l[2])
    if why then
      local retry = why == 'insufficient_stock' and may_come_back(stock.name, l[2] - units, now)
      shortages[#shortages + 1] = { l[1], l[2], units, retry }
      if not reason or SEVERITY[why] > SEVERITY[reason] then
        reason = why
      end
    end
  end
  if busy and (not reason or reason == 'insufficient_stock') then
    reason = 'busy'
  end
  return reason, shortages
end

-- The lines that a policy lets a hold have instead of those that were asked for.
local function lesser(policy, tenant, user, own)
  local lines = {}
  for _, l in ipairs(own) do
    local units, why = obtainable(stock_of(tenant, l[1]), user, l[2])
    if units > 0 and (policy == 'up_to' or not why) then
      lines[#lines + 1] = { l[1], units }
    end
  end
  return lines
end

function decide.reserve(c, now)
  local tenant, id, user, rest, lines, policy, is_cart = c[5], c[8], c[9], c[11], c[12], c[13], c[15]
  local hold, known = hold_of(id, now)
  if known then
    local is_same = fingerprint_of(known.rest) == fingerprint_of(rest)
    return is_same and replayed(known) or refused('idempotency_key_reused')
  end
  local reason, shortages = shortages_of(tenant, user, lines, now)
  if policy and reason and not busy then
    local some = lesser(policy, tenant, user, lines)
    if #some > 0 then
      reason, lines, rest = nil, some, fingerprint_of(rest) .. cmsgpack.pack(some) .. string.sub(rest, c[14] + 1)
    end
  end
  local state, expires = is_cart and 'pending' or 'held', now + (is_cart and relay_ms or c[10])
  if reason then
    state, expires = 'rejected', now
  end
  local cell = { state, c[2], now, expires, now, NOT_PAYING, is_cart and c[10] or 0, '', '', tenant, user, lines = lines,
    rest = rest }
  -- Of a hold that lives in this lane alone all but the deadline is in the command.
  local shown = is_cart and cell or nil
  if reason then
    return { kind = 'rejected', number = expires, hold = shown, lines = lines_of_hold(cell), reason = reason,
      shortages = shortages }
  end
  if is_cart then
    relay_units(part_name(id, c[2]), tenant, lines, expires)
  end
  move_hold(cell, MOVES.created)
  hold.cell, hold.dirty, hold.packed = cell, true, pack_hold(cell)
  return { kind = is_cart and 'pending' or 'created', number = expires, hold = shown, packed = hold.packed,
    lines = lines_of_hold(cell) }
end

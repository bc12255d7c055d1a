-- Stock (behind start; holds, carts and commands on a SKU move it): a SKU's counters and its users' units, each read once in
-- a batch and written once.
local stocks, new_skus = {}, {}
-- Users' units that were read ahead, by tenant, SKU and user.
local units_ahead = {}

local function stock_of(tenant, sku)
  local of_tenant = stocks[tenant]
  if not of_tenant then
    of_tenant = {}
    stocks[tenant] = of_tenant
  end
  local stock = of_tenant[sku]
  if stock then
    return stock
  end
  local name = tenant .. '/' .. sku
  local f = redis.call('HMGET', base .. 'stock:' .. name, 'on_hand', 'held', 'allocated', 'version', 'safety_stock',
    'max_per_user')
  if f[1] then
    stock = { known = true, on_hand = tonumber(f[1]), held = tonumber(f[2]), allocated = tonumber(f[3]),
      version = tonumber(f[4]), safety = tonumber(f[5]), max = tonumber(f[6]) }
  elseif redis.call('SISMEMBER', skus_key, name) == 1 then
    damage('stock of ' .. name .. ' is missing')
  else
    stock = { known = false, on_hand = 0, held = 0, allocated = 0, version = 0, safety = 0 }
  end
  -- Units that its users hold or have bought, as far as they were read; and whose changed. `is_other`: more than `held`
  -- and the version is to be written.
  local ahead = units_ahead[tenant]
  stock.name, stock.units, stock.changed = name, ahead and ahead[sku] or {}, {}
  of_tenant[sku] = stock
  return stock
end

local function units_of(stock, user)
  local units = stock.units[user]
  if not units then
    units = tonumber(redis.call('HGET', base .. 'limit:' .. stock.name, user) or '0')
    stock.units[user] = units
  end
  return units
end

-- A line of an outcome: the counters after the decision.
local function line(stock, sku, quantity, counted)
  return '\151' .. cmsgpack.pack(sku, quantity, counted, stock.on_hand, stock.held, stock.allocated, stock.version)
end

local function lines_of(tenant, user, own)
  local lines = {}
  for i, l in ipairs(own) do
    local stock = stock_of(tenant, l[1])
    lines[i] = line(stock, l[1], l[2], units_of(stock, user))
  end
  return lines
end

-- What an end does to the counters of each line, per unit: on hand, held, allocated, counted.
local MOVES = { created = { 0, 1, 0, 1 }, confirmed = { 0, -1, 1, 0 }, cancelled = { 0, -1, 0, -1 },
  expired = { 0, -1, 0, -1 }, rejected = { 0, -1, 0, -1 }, shipped = { -1, 0, -1, 0 }, unallocated = { 0, 0, -1, -1 } }

-- Every line of a hold, or of a part, moves by its units.
local function move(tenant, user, own, moves)
  local on_hand, held, allocated, counted = unpack(moves)
  for _, l in ipairs(own) do
    local stock, units = stock_of(tenant, l[1]), l[2]
    if not stock.known then
      damage('stock of ' .. stock.name .. ' is missing')
    end
    stock.on_hand, stock.held = stock.on_hand + on_hand * units, stock.held + held * units
    stock.allocated = stock.allocated + allocated * units
    stock.version, stock.dirty = stock.version + 1, true
    stock.is_other = stock.is_other or on_hand ~= 0 or allocated ~= 0
    if counted ~= 0 then
      stock.units[user], stock.changed[user] = units_of(stock, user) + counted * units, true
    end
  end
end

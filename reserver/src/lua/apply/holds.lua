-- Holds (behind stock; every step of a hold asks here). A hold's value is one MessagePack array (schemas/src/cells/hold.rs):
-- the scalars below, its fingerprint, its lines, and its terms, which are made by Rust and which only Rust looks into.
-- `rest` is fingerprint, lines and terms, packed: what never changes.
local STATE, ATTEMPT, CREATED, EXPIRES, CHANGED, REMAINING, CART_TTL = 1, 2, 3, 4, 5, 6, 7
local PAYMENT, REASON, TENANT, USER = 8, 9, 10, 11
local SCALARS, FINGERPRINT_BYTES, HOLD_HEAD = 11, 34, '\158'
local NOT_PAYING = -1
-- A hold's states (domain/src/hold.rs): those that a step may start from, those that `due` names, those never forgotten.
local HELD, PAYING, CONFIRMED = { held = true }, { paying = true }, { confirmed = true }
local LIVE = { held = true, paying = true }
local DUE = { pending = true, held = true, paying = true }
local KEPT = { pending = true, held = true, paying = true, confirmed = true }
-- Why a step that starts elsewhere is refused.
local REFUSALS = { pending = 'hold_pending', held = 'not_confirmed', paying = 'payment_in_progress', confirmed = 'already_confirmed',
  shipped = 'already_shipped', unallocated = 'already_unallocated', cancelled = 'already_cancelled',
  expired = 'hold_expired' }

-- Holds that the batch has looked at, by id.
local holds = {}

local function pack_hold(cell)
  return HOLD_HEAD .. cmsgpack.pack(unpack(cell, 1, SCALARS)) .. cell.rest
end

local function read_hold(packed)
  local cell = { cmsgpack.unpack_limit(packed, SCALARS, 1) }
  local rest_at = table.remove(cell, 1)
  local _, lines = cmsgpack.unpack_one(packed, rest_at + FINGERPRINT_BYTES)
  cell.lines, cell.rest = lines, string.sub(packed, rest_at + 1)
  return cell
end

-- The fingerprint that `rest` starts with, packed.
local function fingerprint_of(rest)
  return string.sub(rest, 1, FINGERPRINT_BYTES)
end

local function hold_of(id, now)
  local hold = holds[id]
  if not hold then
    local packed = redis.call('HGET', holds_key, id)
    hold = packed and { cell = read_hold(packed) } or {}
    holds[id] = hold
  end
  hold.packed = nil -- Whoever asks for a hold may change it.
  local cell = hold.cell
  if cell and not KEPT[cell[STATE]] and cell[CHANGED] + remember_ms <= now then
    return hold, nil
  end
  return hold, cell
end

-- Most commands of a sale are reservations: what they look at is read by one call for many. Nothing is judged here: a
-- command may be refused before it looks at anything.
local function read_ahead()
  local ids, users = {}, {}
  for _, c in ipairs(commands) do
    if c[1] == 'reserve' and c[2] > fence and not holds[c[8]] then
      holds[c[8]] = {}
      ids[#ids + 1] = c[8]
      local of_tenant = users[c[5]] or {}
      users[c[5]] = of_tenant
      for _, l in ipairs(c[12]) do
        local of_sku = of_tenant[l[1]] or {}
        of_tenant[l[1]], of_sku[#of_sku + 1] = of_sku, c[9]
      end
    end
  end
  if #ids > 0 then
    for i, packed in ipairs(redis.call('HMGET', holds_key, unpack(ids))) do
      holds[ids[i]].cell = packed and read_hold(packed) or nil
    end
  end
  for tenant, of_tenant in pairs(users) do
    units_ahead[tenant] = {}
    for sku, of_sku in pairs(of_tenant) do
      local known = {}
      units_ahead[tenant][sku] = known
      for i, units in ipairs(redis.call('HMGET', base .. 'limit:' .. tenant .. '/' .. sku, unpack(of_sku))) do
        known[of_sku[i]] = tonumber(units or '0')
      end
    end
  end
end

-- A hold that is gone by any way but this script's: its key would be free again.
local function count_holds()
  local count = redis.call('HLEN', holds_key)
  if count ~= holds_before then
    damage('there are ' .. count .. ' holds and not ' .. lane[6])
  end
end

local function lines_of_hold(cell)
  return lines_of(cell[TENANT], cell[USER], cell.lines)
end

local function move_hold(cell, moves)
  move(cell[TENANT], cell[USER], cell.lines, moves)
end

local function replayed(cell)
  return { kind = 'replayed', hold = cell, lines = lines_of_hold(cell) }
end

-- A refusal that shows the hold as it is.
local function refused_of(reason, cell)
  return { kind = 'refused', reason = reason, hold = cell, lines = lines_of_hold(cell) }
end

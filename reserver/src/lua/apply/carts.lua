-- Carts over several lanes (behind reserve; a release of a pending cart asks here): what the home lane decides, and the parts
-- of other lanes' carts that this lane keeps.
-- A part's value is one MessagePack array (schemas/src/cells.rs).
local PART_STATE, PART_ATTEMPT, PART_TENANT, PART_USER, PART_UNTIL, PART_CHANGED, PART_LINES = 1, 2, 3, 4, 5, 6, 7
local PART_KEPT = { held = true, settled = true }
-- From which state to which a part follows its home lane, and what moves then.
local PART_STEPS = { settle = { 'held', 'settled', 'confirmed' }, undo = { 'held', 'undone', 'cancelled' },
  ship = { 'settled', 'shipped', 'shipped' }, unallocate = { 'settled', 'unallocated', 'unallocated' } }

-- Parts that the batch has looked at, by hold and attempt.
local parts = {}

local function part_of(id, now)
  local part = parts[id]
  if part == nil then
    local packed = redis.call('GET', base .. 'part:' .. id)
    part = packed and { cell = cmsgpack.unpack(packed) } or {}
    if not packed and redis.call('SISMEMBER', parts_key, id) == 1 then
      damage('part ' .. id .. ' is missing')
    end
    parts[id] = part
  end
  local cell = part.cell
  if cell and not PART_KEPT[cell[PART_STATE]] and cell[PART_CHANGED] + remember_ms <= now and cell[PART_UNTIL] <= now then
    return part, nil
  end
  return part, cell
end

local function lines_of_part(cell)
  return lines_of(cell[PART_TENANT], cell[PART_USER], cell[PART_LINES])
end

-- A pending cart that is not held: nothing of it stays, so that its key may be used again.
local function reject(c, now, reason, shortages)
  local hold, cell = hold_of(c[8], now)
  cell[STATE], cell[EXPIRES], cell[CHANGED] = 'rejected', now, now
  hold.cell, hold.gone = nil, true
  move_hold(cell, MOVES.rejected)
  relay_units(part_name(c[8], cell[ATTEMPT]), cell[TENANT], cell.lines)
  return { kind = 'rejected', hold = cell, lines = lines_of_hold(cell), reason = reason, shortages = shortages }
end

-- The pending cart of an attempt; what comes after its decision changes nothing.
local function pending_cart(c, now)
  local _, cell = hold_of(c[8], now)
  return cell and cell[STATE] == 'pending' and cell[ATTEMPT] == c[9] and cell[TENANT] == c[5] and cell or nil
end

function decide.relay_done(c, now)
  local cell = pending_cart(c, now)
  if not cell then
    return { kind = 'relay_ignored' }
  end
  cell[STATE], cell[EXPIRES], cell[CHANGED] = 'held', now + cell[CART_TTL], now
  holds[c[8]].dirty = true
  relay_units(part_name(c[8], c[9]), cell[TENANT], cell.lines)
  return { kind = 'created', hold = cell, lines = lines_of_hold(cell) }
end

function decide.relay_failed(c, now)
  return pending_cart(c, now) and reject(c, now, c[10], c[11]) or { kind = 'relay_ignored' }
end

-- This lane's lines of another lane's cart: held once an attempt, all or nothing, and not after the relay's deadline.
function decide.relay(c, now)
  local id, tenant, user, own = part_name(c[8], c[9]), c[5], c[10], c[12]
  local part, known = part_of(id, now)
  if known then
    return { kind = 'relay_ignored' }
  end
  local cell = { 'held', c[9], tenant, user, c[11], now, own, c[13] }
  local reason, shortages = 'cart_timed_out', {}
  if now < c[11] then
    reason, shortages = shortages_of(tenant, user, own, now)
  end
  if reason then
    cell[PART_STATE] = 'undone'
    return { kind = 'part_refused', part = cell, lines = lines_of_part(cell), reason = reason, shortages = shortages }
  end
  part.cell, part.dirty = cell, true
  move(tenant, user, own, MOVES.created)
  relay_units(id, tenant, own, c[11])
  return { kind = 'part_held', part = cell, lines = lines_of_part(cell) }
end

-- What the home lane decided. An undo that finds nothing leaves a mark, so that a relay that comes later holds nothing.
function decide.follow(c, now)
  local id, tenant = part_name(c[8], c[9]), c[5]
  local part, cell = part_of(id, now)
  local from, to, moves = unpack(PART_STEPS[c[11]])
  if not cell then
    if c[11] ~= 'undo' then
      return refused('hold_not_found')
    elseif now >= c[10] then
      return { kind = 'relay_ignored' }
    end
    cell = { to, c[9], tenant, '', c[10], now, {}, {} }
    part.cell = cell
  elseif cell[PART_STATE] ~= from or cell[PART_TENANT] ~= tenant then
    return { kind = 'relay_ignored' }
  else
    cell[PART_STATE], cell[PART_CHANGED] = to, now
    move(tenant, cell[PART_USER], cell[PART_LINES], MOVES[moves])
    relay_units(id, tenant, cell[PART_LINES])
  end
  part.dirty = true
  if not PART_KEPT[to] then
    forget_at(math.max(now + remember_ms, cell[PART_UNTIL]), 'part:' .. id)
  end
  return { kind = 'part_followed', part = cell, lines = lines_of_part(cell) }
end

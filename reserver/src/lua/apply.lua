#!lua flags=allow-oom
-- apply.lua: decide a batch of commands of one lane, or say why this owner may not.
--
-- KEYS     lane; the other keys of its slot are derived from it (schemas/src/keys.rs)
-- ARGV     epoch, batch (MessagePack): { previous, commands, trim, busy, remember_ms, max_hold_ms, relay_ms, requests, request_ms }
--          a command: { kind, offset, timestamp, hash, tenant, source, source_time, ... by kind }
--          requests: by command, what its request is remembered by; '' where it names none
-- Returns  { "OK", outcome, ... } | { "FENCED", epoch } | { "GAP", fence } | { "DAMAGED", what }
--          an outcome (MessagePack): { kind, time, previous, hash, lines, hold, reason, shortages, number, part }
-- Replay   an offset at or below the fence gets the outcome it got the first time, and moves nothing.
--
-- Shape: unpack, fence, read and decide, write, remember, reply. Nothing that can fail comes after the first write; a
-- script error rolls nothing back, so the lane is marked `building` while it is written.
local STATE, ATTEMPT, TENANT, USER, FINGERPRINT, EXPIRES, CHANGED, PAYMENT, REASON, LINES = 1, 2, 3, 4, 6, 8, 9, 12, 13, 14
local CREATED, REMAINING, CART = 7, 15, 16
-- A part of another lane's cart begins as a hold does, up to USER.
local PART_UNTIL, PART_CHANGED, PART_LINES = 5, 6, 7
local NOT_PAYING = -1
local ON_HAND_MAX = 1000000000000
-- A hold's states (domain/src/hold.rs): those that a step may start from, those that `due` names, those never forgotten.
local HELD, PAYING, CONFIRMED = { held = true }, { paying = true }, { confirmed = true }
local LIVE = { held = true, paying = true }
local DUE = { pending = true, held = true, paying = true }
local KEPT = { pending = true, held = true, paying = true, confirmed = true }
local PART_KEPT = { held = true, settled = true }
-- From which state to which a part follows its home lane, and what moves then.
local PART_STEPS = { settle = { 'held', 'settled', 'confirmed' }, undo = { 'held', 'undone', 'cancelled' },
  ship = { 'settled', 'shipped', 'shipped' }, unallocate = { 'settled', 'unallocated', 'unallocated' } }
-- Outcomes that leave no trace by which a record that comes again would be known (domain/src/request.rs), reasons that are no
-- outcome, and commands that are not known by their request.
local ENDS_REQUEST = { refused = true, rejected = true, pending = true, began = true, aborted = true }
local FLEETING = { busy = true, stale = true, already_applied = true }
local NAMED_OTHERWISE = { relay = true, relay_done = true, relay_failed = true, follow = true, forward = true, refuse = true,
  skip = true }
-- Why a step that starts elsewhere is refused.
local REFUSALS = { pending = 'hold_pending', held = 'not_confirmed', paying = 'payment_in_progress', confirmed = 'already_confirmed',
  shipped = 'already_shipped', unallocated = 'already_unallocated', cancelled = 'already_cancelled',
  expired = 'hold_expired' }
-- What an end does to the counters of each line, per unit: on hand, held, allocated, counted.
local MOVES = { created = { 0, 1, 0, 1 }, confirmed = { 0, -1, 1, 0 }, cancelled = { 0, -1, 0, -1 },
  expired = { 0, -1, 0, -1 }, rejected = { 0, -1, 0, -1 }, shipped = { -1, 0, -1, 0 }, unallocated = { 0, 0, -1, -1 } }

-- Unpack and fence.
local batch = cmsgpack.unpack(ARGV[2])
local previous, commands, trim, busy, remember_ms, max_hold_ms, relay_ms, requests, request_ms = unpack(batch)
local lane = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'fence', 'building', 'log_time')
if lane[1] ~= ARGV[1] or lane[4] then
  return { 'FENCED', lane[1] or '-1' }
end
local fence, log_time = tonumber(lane[3]), tonumber(lane[5])
local base = string.sub(KEYS[1], 1, -5) .. lane[2] .. ':'
local journal_key, skus_key, due_key, forget_key = base .. 'journal', base .. 'skus', base .. 'due', base .. 'forget'
local parts_key, requests_key = base .. 'parts', base .. 'requests'

local function int(number)
  return string.format('%.0f', number)
end

-- What the batch has read, each key once, and what it will write.
local stocks, holds, parts, counts, remembered, damaged = {}, {}, {}, {}, {}, nil
local relayed, new_skus, outcomes, journal, forget = {}, {}, {}, {}, {}
local ended, new_ended = {}, {} -- Requests that had their outcome, by log time.

local function damage(what)
  damaged = what
  error('damaged')
end

local function stock_of(name)
  local stock = stocks[name]
  if stock then
    return stock
  end
  local key = base .. 'stock:' .. name
  local f = redis.call('HMGET', key, 'on_hand', 'held', 'allocated', 'version', 'safety_stock', 'max_per_user')
  if f[1] then
    stock = { key = key, known = true, on_hand = tonumber(f[1]), held = tonumber(f[2]), allocated = tonumber(f[3]),
      version = tonumber(f[4]), safety = tonumber(f[5]), max = tonumber(f[6]) }
  elseif redis.call('SISMEMBER', skus_key, name) == 1 then
    damage('stock of ' .. name .. ' is missing')
  else
    stock = { key = key, known = false, on_hand = 0, held = 0, allocated = 0, version = 0, safety = 0 }
  end
  stocks[name] = stock
  return stock
end

local function available(stock)
  return math.max(0, stock.on_hand - stock.held - stock.allocated - stock.safety)
end

local function count_of(name, user)
  local users = counts[name]
  if not users then
    users = {}
    counts[name] = users
  end
  local count = users[user]
  if not count then
    count = { units = tonumber(redis.call('HGET', base .. 'limit:' .. name, user) or '0') }
    users[user] = count
  end
  return count
end

local function hold_of(id, now)
  local hold = holds[id]
  if hold == nil then
    local packed = redis.call('GET', base .. 'hold:' .. id)
    hold = packed and { cell = cmsgpack.unpack(packed) } or { is_due = redis.call('ZSCORE', due_key, id) }
    holds[id] = hold
  end
  if hold.is_due and not hold.cell then
    damage('hold ' .. id .. ' is missing')
  end
  hold.packed = nil -- Whoever asks for a hold may change it.
  local cell = hold.cell
  if cell and not KEPT[cell[STATE]] and cell[CHANGED] + remember_ms <= now then
    return hold, nil
  end
  return hold, cell
end

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
  if cell and not PART_KEPT[cell[STATE]] and cell[PART_CHANGED] + remember_ms <= now and cell[PART_UNTIL] <= now then
    return part, nil
  end
  return part, cell
end

-- Most commands of a sale are reservations: what they look at is read by one call for many.
local function read_ahead()
  local ids, keys, asked, users = {}, {}, {}, {}
  for _, c in ipairs(commands) do
    if c[1] == 'reserve' and c[2] > fence and not asked[c[8]] then
      asked[c[8]] = true
      ids[#ids + 1], keys[#keys + 1] = c[8], base .. 'hold:' .. c[8]
      for _, l in ipairs(c[15]) do
        local name = c[5] .. '/' .. l[1]
        local of_sku = users[name] or {}
        users[name], of_sku[#of_sku + 1] = of_sku, c[10]
      end
    end
  end
  for from = 1, #ids, 200 do
    local to, missing = math.min(from + 199, #ids), {}
    for i, packed in ipairs(redis.call('MGET', unpack(keys, from, to))) do
      local id = ids[from + i - 1]
      holds[id] = packed and { cell = cmsgpack.unpack(packed) } or {}
      if not packed then
        missing[#missing + 1] = id
      end
    end
    if #missing > 0 then
      for i, score in ipairs(redis.call('ZMSCORE', due_key, unpack(missing))) do
        holds[missing[i]].is_due = score
      end
    end
  end
  for name, of_sku in pairs(users) do
    local known = {}
    counts[name] = known
    for from = 1, #of_sku, 200 do
      local to = math.min(from + 199, #of_sku)
      for i, units in ipairs(redis.call('HMGET', base .. 'limit:' .. name, unpack(of_sku, from, to))) do
        known[of_sku[from + i - 1]] = { units = tonumber(units or '0') }
      end
    end
  end
end

local function read_ended()
  local asked = {}
  for i, c in ipairs(commands) do
    if requests[i] ~= '' and c[2] > fence then
      asked[#asked + 1] = requests[i]
    end
  end
  for from = 1, #asked, 200 do
    local to = math.min(from + 199, #asked)
    for i, at in ipairs(redis.call('ZMSCORE', requests_key, unpack(asked, from, to))) do
      ended[asked[from + i - 1]] = at and tonumber(at) or nil
    end
  end
end

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

local function remember(suffix, fingerprint, now)
  remembered[suffix] = { fingerprint, now, new = true }
  forget[#forget + 1] = cmsgpack.pack({ now + remember_ms, suffix })
end

local function line(name, sku, quantity, user)
  local stock = stock_of(name)
  local counted = user and count_of(name, user).units or 0
  return { sku, quantity, counted, stock.on_hand, stock.held, stock.allocated, stock.version }
end

local function lines_of(cell, own)
  local lines = {}
  for i, l in ipairs(own or cell[LINES]) do
    lines[i] = line(cell[TENANT] .. '/' .. l[1], l[1], l[2], cell[USER])
  end
  return lines
end

-- Every line of a hold, or of a part, moves by its units.
local function move(cell, moves, own)
  local on_hand, held, allocated, counted = unpack(moves)
  for _, l in ipairs(own or cell[LINES]) do
    local name = cell[TENANT] .. '/' .. l[1]
    local stock, count = stock_of(name), count_of(name, cell[USER])
    if not stock.known then
      damage('stock of ' .. name .. ' is missing')
    end
    stock.on_hand = stock.on_hand + on_hand * l[2]
    stock.held, stock.allocated = stock.held + held * l[2], stock.allocated + allocated * l[2]
    stock.version, stock.dirty = stock.version + 1, true
    if counted ~= 0 then
      count.units, count.dirty = count.units + counted * l[2], true
    end
  end
end

-- Notes units of a cart that is not decided, until the relay's deadline; without one, they are decided.
local function relay_units(id, cell, own, deadline)
  for _, l in ipairs(own) do
    local name = cell[TENANT] .. '/' .. l[1]
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

-- How many units of a line a user may have now, and why not more.
local function obtainable(tenant, user, l)
  local name = tenant .. '/' .. l[1]
  local stock, counted = stock_of(name), count_of(name, user).units
  local left = available(stock)
  if not stock.known then
    return 0, 'unknown_sku'
  elseif stock.max and counted + l[2] > stock.max then
    return math.min(left, math.max(0, stock.max - counted)), 'limit_exceeded'
  elseif left < l[2] then
    return left, 'insufficient_stock'
  end
  return l[2], nil
end

-- Why some lines cannot be held, and every short one of them; nil where they can.
local SEVERITY = { insufficient_stock = 1, limit_exceeded = 2, unknown_sku = 3 }
local function shortages_of(tenant, user, own, now)
  local reason, shortages = nil, {}
  for _, l in ipairs(own) do
    local units, why = obtainable(tenant, user, l)
    if why then
      local retry = why == 'insufficient_stock' and may_come_back(tenant .. '/' .. l[1], l[2] - units, now)
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
    local units, why = obtainable(tenant, user, l)
    if units > 0 and (policy == 'up_to' or not why) then
      lines[#lines + 1] = { l[1], units }
    end
  end
  return lines
end

local function refused(reason)
  return { kind = 'refused', reason = reason }
end

local function replayed(cell)
  return { kind = 'replayed', hold = cell, lines = lines_of(cell) }
end

local decide = {}

function decide.reserve(c, now)
  local hold, known = hold_of(c[8], now)
  if known then
    return known[FINGERPRINT] == c[11] and replayed(known) or refused('idempotency_key_reused')
  end
  local reason, shortages = shortages_of(c[5], c[10], c[15], now)
  local lines, asked, cart = c[15], {}, {}
  if c[13] ~= 'all_or_nothing' then
    asked = c[15]
    if reason and not busy then
      local some = lesser(c[13], c[5], c[10], c[15])
      lines, reason = #some > 0 and some or lines, #some == 0 and reason or nil
    end
  end
  if #c[16] > 0 then
    cart = { { now + relay_ms, c[12], c[16] } }
  end
  local cell = { 'held', c[2], c[5], c[10], c[9], c[11], now, now + c[12], now, c[13], c[14], '', '', lines,
    NOT_PAYING, cart, asked }
  if reason then
    cell[STATE], cell[EXPIRES] = 'rejected', now
    return { kind = 'rejected', hold = cell, lines = lines_of(cell), reason = reason, shortages = shortages }
  end
  if #cart > 0 then
    cell[STATE], cell[EXPIRES] = 'pending', now + relay_ms
    relay_units(c[8] .. '/' .. int(c[2]), cell, lines, now + relay_ms)
  end
  hold.cell, hold.dirty = cell, true
  move(cell, MOVES.created)
  hold.packed = cmsgpack.pack(cell)
  local kind = #cart > 0 and 'pending' or 'created'
  return { kind = kind, hold = cell, packed = hold.packed, lines = lines_of(cell) }
end

-- A refusal that shows the hold as it is.
local function refused_of(reason, cell)
  return { kind = 'refused', reason = reason, hold = cell, lines = lines_of(cell) }
end

-- Ends a hold, or its sale.
local function finish(c, now, state)
  local hold, cell = hold_of(c[8], now)
  cell[STATE], cell[CHANGED], cell[REMAINING] = state, now, NOT_PAYING
  hold.dirty, hold.done = true, true
  move(cell, MOVES[state])
  if not KEPT[state] then
    forget[#forget + 1] = cmsgpack.pack({ now + remember_ms, 'hold:' .. c[8] })
  end
  return { kind = state, hold = cell, lines = lines_of(cell) }
end

-- The hold that a command names if its state is one of `from`, else the answer; `same`: the states that make the command
-- a repetition.
local function hold_in(c, now, from, same)
  local _, cell = hold_of(c[8], now)
  if not cell or cell[TENANT] ~= c[5] then
    return nil, refused('hold_not_found')
  elseif from[cell[STATE]] then
    return cell
  elseif same and same[cell[STATE]] then
    return nil, replayed(cell)
  end
  return nil, refused_of(REFUSALS[cell[STATE]], cell)
end

-- Whether a hold's payment is the one that a command names.
local function same_payment(c, now)
  local _, cell = hold_of(c[8], now)
  return cell ~= nil and cell[PAYMENT] == c[9]
end

function decide.confirm(c, now)
  local same = same_payment(c, now)
  local cell, answer = hold_in(c, now, same and LIVE or HELD, same and { confirmed = true, shipped = true } or nil)
  if not cell then
    return answer
  end
  cell[PAYMENT] = c[9]
  return finish(c, now, 'confirmed')
end

function decide.cancel(c, now)
  local cell, answer = hold_in(c, now, HELD, { cancelled = true })
  if not cell then
    return answer
  end
  cell[REASON] = c[9]
  return finish(c, now, 'cancelled')
end

-- A pending cart that is not held: nothing of it stays, so that its key may be used again.
local function reject(c, now, reason, shortages)
  local hold, cell = hold_of(c[8], now)
  cell[STATE], cell[EXPIRES], cell[CHANGED] = 'rejected', now, now
  hold.cell, hold.gone = nil, true
  move(cell, MOVES.rejected)
  relay_units(c[8] .. '/' .. int(cell[ATTEMPT]), cell, cell[LINES])
  return { kind = 'rejected', hold = cell, lines = lines_of(cell), reason = reason, shortages = shortages }
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
  cell[STATE], cell[EXPIRES], cell[CHANGED] = 'held', now + cell[CART][1][2], now
  holds[c[8]].dirty = true
  relay_units(c[8] .. '/' .. int(c[9]), cell, cell[LINES])
  return { kind = 'created', hold = cell, lines = lines_of(cell) }
end

function decide.relay_failed(c, now)
  return pending_cart(c, now) and reject(c, now, c[10], c[11]) or { kind = 'relay_ignored' }
end

-- This lane's lines of another lane's cart: held once an attempt, all or nothing, and not after the relay's deadline.
function decide.relay(c, now)
  local id = c[8] .. '/' .. int(c[9])
  local part, known = part_of(id, now)
  if known then
    return { kind = 'relay_ignored' }
  end
  local cell = { 'held', c[9], c[5], c[10], c[11], now, c[12], c[13] }
  local reason, shortages = 'cart_timed_out', {}
  if now < c[11] then
    reason, shortages = shortages_of(c[5], c[10], c[12], now)
  end
  if reason then
    cell[STATE] = 'undone'
    return { kind = 'part_refused', part = cell, lines = lines_of(cell, c[12]), reason = reason, shortages = shortages }
  end
  part.cell, part.dirty = cell, true
  move(cell, MOVES.created, c[12])
  relay_units(id, cell, c[12], c[11])
  return { kind = 'part_held', part = cell, lines = lines_of(cell, c[12]) }
end

-- What the home lane decided. An undo that finds nothing leaves a mark, so that a relay that comes later holds nothing.
function decide.follow(c, now)
  local id = c[8] .. '/' .. int(c[9])
  local part, cell = part_of(id, now)
  local from, to, moves = unpack(PART_STEPS[c[11]])
  if not cell then
    if c[11] ~= 'undo' then
      return refused('hold_not_found')
    elseif now >= c[10] then
      return { kind = 'relay_ignored' }
    end
    cell = { to, c[9], c[5], '', c[10], now, {}, {} }
    part.cell = cell
  elseif cell[STATE] ~= from or cell[TENANT] ~= c[5] then
    return { kind = 'relay_ignored' }
  else
    cell[STATE], cell[PART_CHANGED] = to, now
    move(cell, MOVES[moves], cell[PART_LINES])
    relay_units(id, cell, cell[PART_LINES])
  end
  part.dirty = true
  if not PART_KEPT[to] then
    forget[#forget + 1] = cmsgpack.pack({ math.max(now + remember_ms, cell[PART_UNTIL]), 'part:' .. id })
  end
  return { kind = 'part_followed', part = cell, lines = lines_of(cell, cell[PART_LINES]) }
end

function decide.release(c, now)
  local cell, answer = hold_in(c, now, DUE, nil)
  if not cell then
    return answer
  end
  if (c[9] >= 0 and c[9] ~= cell[ATTEMPT]) then
    return refused('hold_not_found')
  end
  if now < cell[EXPIRES] then
    return refused_of('not_due', cell)
  end
  if cell[STATE] == 'pending' then
    return reject(c, now, 'cart_timed_out', {})
  end
  return finish(c, now, 'expired')
end

-- The clock of a hold stands still while it is paying, until the payment's cap.
function decide.begin_payment(c, now)
  local cell, answer = hold_in(c, now, HELD, same_payment(c, now) and PAYING or nil)
  if not cell then
    return answer
  end
  -- Else payments that begin and fail would keep units for ever.
  if now > cell[CREATED] + max_hold_ms then
    return refused_of('lifetime_exceeded', cell)
  end
  cell[STATE], cell[PAYMENT], cell[REMAINING] = 'paying', c[9], math.max(0, cell[EXPIRES] - now)
  cell[EXPIRES], cell[CHANGED] = now + c[10], now
  holds[c[8]].dirty = true
  return { kind = 'began', hold = cell, lines = lines_of(cell) }
end

function decide.abort_payment(c, now)
  local same = same_payment(c, now)
  local cell, answer = hold_in(c, now, LIVE, nil)
  if not cell then
    return answer
  end
  if cell[STATE] == 'held' then
    return same and replayed(cell) or refused_of('not_paying', cell)
  elseif not same then
    return refused_of('payment_in_progress', cell)
  end
  cell[STATE], cell[EXPIRES], cell[CHANGED], cell[REMAINING] = 'held', now + cell[REMAINING], now, NOT_PAYING
  holds[c[8]].dirty = true
  return { kind = 'aborted', hold = cell, lines = lines_of(cell) }
end

function decide.ship(c, now)
  local cell, answer = hold_in(c, now, CONFIRMED, { shipped = true })
  if not cell then
    return answer
  end
  return finish(c, now, 'shipped')
end

function decide.unallocate(c, now)
  local cell, answer = hold_in(c, now, CONFIRMED, { unallocated = true })
  if not cell then
    return answer
  end
  cell[REASON] = c[9]
  return finish(c, now, 'unallocated')
end

-- A payment whose hold is gone has to be given back: a fact, once by its command id, that moves nothing.
function decide.require_refund(c, now)
  local suffix = 'command:' .. c[5] .. '/' .. c[10]
  local memory = memory_of(suffix, now)
  if memory and memory[1] ~= c[11] then
    return refused('idempotency_key_reused')
  end
  local _, cell = hold_of(c[8], now)
  if cell and cell[TENANT] ~= c[5] then
    cell = nil
  end
  if memory then
    return cell and replayed(cell) or { kind = 'replayed' }
  end
  if cell and cell[PAYMENT] == c[9] then
    if cell[STATE] == 'paying' then
      return refused_of('payment_in_progress', cell)
    elseif cell[STATE] == 'confirmed' or cell[STATE] == 'shipped' then
      return refused_of('already_confirmed', cell)
    end
  end
  remember(suffix, c[11], now)
  return { kind = 'refund', hold = cell, lines = cell and lines_of(cell) }
end

function decide.extend(c, now)
  local suffix = 'command:' .. c[5] .. '/' .. c[10]
  local memory = memory_of(suffix, now)
  if memory then
    local _, known = hold_of(c[8], now)
    return memory[1] == c[11] and known and replayed(known) or refused('idempotency_key_reused')
  end
  local cell, answer = hold_in(c, now, HELD, nil)
  if not cell then
    return answer
  end
  if now + c[9] > cell[CREATED] + max_hold_ms then
    return refused_of('lifetime_exceeded', cell)
  end
  local hold = holds[c[8]]
  cell[EXPIRES], cell[CHANGED] = math.max(cell[EXPIRES], now + c[9]), now
  hold.dirty, hold.due = true, true
  remember(suffix, c[11], now)
  return { kind = 'extended', hold = cell, lines = lines_of(cell) }
end

-- A command on one SKU, applied once by its command id.
local function on_sku(c, now, id, fingerprint, change)
  local name, suffix = c[5] .. '/' .. c[8], 'command:' .. c[5] .. '/' .. id
  local memory = memory_of(suffix, now)
  if memory then
    if memory[1] ~= fingerprint then
      return refused('idempotency_key_reused')
    end
    return { kind = 'stock_replayed', lines = { line(name, c[8], 0) } }
  end
  local stock = stock_of(name)
  local outcome = change(stock)
  if outcome.kind ~= 'refused' then
    if not stock.known then
      stock.known = true
      new_skus[#new_skus + 1] = name
    end
    stock.version, stock.dirty = stock.version + 1, true
    remember(suffix, fingerprint, now)
  end
  outcome.lines = { line(name, c[8], 0) }
  return outcome
end

function decide.adjust(c, now)
  return on_sku(c, now, c[12], c[13], function(stock)
    local target = c[9] == 'set' and c[10] or stock.on_hand + c[10]
    if c[11] >= 0 and c[11] ~= stock.on_hand then
      return refused('version_conflict')
    elseif target > ON_HAND_MAX or target < 0 and stock.held + stock.allocated == 0 then
      return refused('invalid_request')
    elseif target < stock.held + stock.allocated then
      return refused('stock_committed')
    end
    local change = target - stock.on_hand
    stock.on_hand = target
    return { kind = 'adjusted', number = change }
  end)
end

function decide.take_back(c, now)
  return on_sku(c, now, c[10], c[11], function(stock)
    if not stock.known then
      return refused('unknown_sku')
    elseif stock.on_hand + c[9] > ON_HAND_MAX then
      return refused('invalid_request')
    end
    stock.on_hand = stock.on_hand + c[9]
    return { kind = 'taken_back' }
  end)
end

function decide.configure(c, now)
  return on_sku(c, now, c[11], c[12], function(stock)
    stock.safety, stock.max = c[9], c[10] >= 0 and c[10] or nil
    return { kind = 'configured' }
  end)
end

function decide.forward(c)
  return { kind = 'forwarded', number = c[8] }
end

function decide.skip()
  return { kind = 'skipped' }
end

function decide.refuse(c)
  return refused(c[8])
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

-- A record that a producer wrote twice gets no second outcome: what was refused stays refused.
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
  new_ended[#new_ended + 1], new_ended[#new_ended + 2] = int(now), request
end

local function replay(c)
  local entry = redis.call('HGET', journal_key, int(c[2]))
  if not entry then
    damage('the journal has no entry of ' .. int(c[2]))
  end
  return entry
end

-- An array of ten; the hold in it, an array of none or one, is packed once where it is stored as it is answered.
local function pack_outcome(outcome, now, hash)
  local hold = outcome.hold and '\145' .. (outcome.packed or cmsgpack.pack(outcome.hold)) or '\144'
  return '\154' .. cmsgpack.pack(outcome.kind, now, previous, hash, outcome.lines or {}) .. hold
    .. cmsgpack.pack(outcome.reason or '', outcome.shortages or {}, outcome.number or 0, { outcome.part })
end

-- Read and decide.
local gap, fence_before = false, fence
local decided, failure = pcall(function()
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

-- Write.
local function in_chunks(command, key, arguments)
  for from = 1, #arguments, 200 do
    local to = math.min(from + 199, #arguments)
    if key then
      redis.call(command, key, unpack(arguments, from, to))
    else
      redis.call(command, unpack(arguments, from, to))
    end
  end
end

redis.call('HSET', KEYS[1], 'building', '1')
for _, stock in pairs(stocks) do
  if stock.dirty then
    redis.call('HSET', stock.key, 'on_hand', int(stock.on_hand), 'held', int(stock.held), 'allocated',
      int(stock.allocated), 'version', int(stock.version), 'safety_stock', int(stock.safety), 'max_per_user',
      stock.max and int(stock.max) or '')
  end
end
in_chunks('SADD', skus_key, new_skus)
for name, users in pairs(counts) do
  local there, gone = {}, {}
  for user, count in pairs(users) do
    if count.dirty and count.units ~= 0 then
      there[#there + 1], there[#there + 2] = user, int(count.units)
    elseif count.dirty then
      gone[#gone + 1] = user
    end
  end
  in_chunks('HSET', base .. 'limit:' .. name, there)
  in_chunks('HDEL', base .. 'limit:' .. name, gone)
end
local cells, due, done = {}, {}, {}
for id, hold in pairs(holds) do
  if hold.gone and not hold.cell then
    redis.call('DEL', base .. 'hold:' .. id)
    done[#done + 1] = id
  elseif hold.dirty then
    cells[#cells + 1], cells[#cells + 2] = base .. 'hold:' .. id, hold.packed or cmsgpack.pack(hold.cell)
    if DUE[hold.cell[STATE]] then
      due[#due + 1], due[#due + 2] = int(hold.cell[EXPIRES]), id
    elseif hold.done then
      done[#done + 1] = id
    end
  end
end
in_chunks('MSET', nil, cells)
in_chunks('ZADD', due_key, due)
in_chunks('ZREM', due_key, done)

for id, part in pairs(parts) do
  if part.dirty then
    redis.call('SET', base .. 'part:' .. id, cmsgpack.pack(part.cell))
    redis.call(PART_KEPT[part.cell[STATE]] and 'SADD' or 'SREM', parts_key, id)
  end
end
for name, changed in pairs(relayed) do
  local key = base .. 'relayed:' .. name
  for member, deadline in pairs(changed) do
    if deadline then
      redis.call('ZADD', key, int(deadline), member)
    else
      redis.call('ZREM', key, member)
    end
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(log_time))
end

-- Remember, and forget a bounded number of what is old.
for suffix, memory in pairs(remembered) do
  if memory and memory.new then
    redis.call('SET', base .. suffix, cmsgpack.pack({ memory[1], memory[2] }))
  end
end
in_chunks('RPUSH', forget_key, forget)
local old = redis.call('LRANGE', forget_key, 0, 2 * #commands + 15)
local gone = 0
for _, packed in ipairs(old) do
  local entry = cmsgpack.unpack(packed)
  if entry[1] > log_time then
    break
  end
  gone = gone + 1
  local value = redis.call('GET', base .. entry[2])
  local cell = value and cmsgpack.unpack(value)
  if cell then
    local kind, kept, changed = string.match(entry[2], '^%a+'), false, cell[2]
    if kind == 'hold' then
      kept, changed = KEPT[cell[STATE]], cell[CHANGED]
    elseif kind == 'part' then
      kept, changed = PART_KEPT[cell[STATE]] or cell[PART_UNTIL] > log_time, cell[PART_CHANGED]
    end
    if not kept and changed + remember_ms <= log_time then
      redis.call('DEL', base .. entry[2])
    end
  end
end
if gone > 0 then
  redis.call('LTRIM', forget_key, gone, -1)
end
in_chunks('ZADD', requests_key, new_ended)
in_chunks('ZREM', requests_key, redis.call('ZRANGEBYSCORE', requests_key, '-inf', int(log_time - request_ms), 'LIMIT', 0,
  2 * #commands + 15))
in_chunks('HDEL', journal_key, trim)
in_chunks('HSET', journal_key, journal)
redis.call('HSET', KEYS[1], 'fence', int(fence), 'log_time', int(log_time))
redis.call('HDEL', KEYS[1], 'building')

-- Reply.
return { 'OK', unpack(outcomes) }

-- Steps of a hold that is there (behind holds, memory and carts): confirm, cancel, release, extend, payment, shipping.

-- Ends a hold, or its sale.
local function finish(c, now, state)
  local hold, cell = hold_of(c[8], now)
  cell[STATE], cell[CHANGED], cell[REMAINING] = state, now, NOT_PAYING
  hold.dirty, hold.done = true, true
  move_hold(cell, MOVES[state])
  if not KEPT[state] then
    forget_at(now + remember_ms, 'hold:' .. c[8])
  end
  return { kind = state, hold = cell, lines = lines_of_hold(cell) }
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

function decide.release(c, now)
  local cell, answer = hold_in(c, now, DUE, nil)
  if not cell then
    return answer
  end
  if c[9] >= 0 and c[9] ~= cell[ATTEMPT] then
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
  return { kind = 'began', hold = cell, lines = lines_of_hold(cell) }
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
  return { kind = 'aborted', hold = cell, lines = lines_of_hold(cell) }
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
  return { kind = 'refund', hold = cell, lines = cell and lines_of_hold(cell) }
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
  hold.dirty = true
  remember(suffix, c[11], now)
  return { kind = 'extended', hold = cell, lines = lines_of_hold(cell) }
end

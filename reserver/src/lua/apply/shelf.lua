
-- Commands on one SKU (behind stock and memory), each applied once by its command id; and what is decided without looking at
-- any stock.
local ON_HAND_MAX = 1000000000000

local function on_sku(c, now, id, fingerprint, change)
  local suffix = 'command:' .. c[5] .. '/' .. id
  local memory = memory_of(suffix, now)
  if memory and memory[1] ~= fingerprint then
    return refused('idempotency_key_reused')
  end
  local stock = stock_of(c[5], c[8])
  if memory then
    return { kind = 'stock_replayed', lines = { line(stock, c[8], 0, 0) } }
  end
  local outcome = change(stock)
  if outcome.kind ~= 'refused' then
    if not stock.known then
      stock.known = true
      new_skus[#new_skus + 1] = stock.name
    end
    stock.version, stock.dirty, stock.is_other = stock.version + 1, true, true
    remember(suffix, fingerprint, now)
  end
  outcome.lines = { line(stock, c[8], 0, 0) }
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

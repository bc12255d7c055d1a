-- Writes what the batch changed, each structure once, and replies. Nothing in here can fail.

-- Nothing for no arguments; for many several calls, for `unpack` takes some thousands.
local function in_chunks(command, key, arguments)
  for from = 1, #arguments, 1000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
  end
end

-- Whether what a name of the forget list stands for may go by now: it may be in use again.
local function is_old(kind, value)
  if kind == 'hold' then
    local cell = read_hold(value)
    return not KEPT[cell[STATE]] and cell[CHANGED] + remember_ms <= log_time
  end
  local cell = cmsgpack.unpack(value)
  if kind == 'part' then
    return not PART_KEPT[cell[PART_STATE]] and cell[PART_UNTIL] <= log_time and cell[PART_CHANGED] + remember_ms <= log_time
  end
  return cell[2] + remember_ms <= log_time
end

-- Forgets a bounded number of what is old.
local function forget_old()
  local oldest = redis.call('LINDEX', forget_key, 0)
  if not oldest or cmsgpack.unpack(oldest)[1] > log_time then
    return
  end
  local passed = 0
  for _, packed in ipairs(redis.call('LRANGE', forget_key, 0, 2 * #commands + 15)) do
    local time, suffix = unpack(cmsgpack.unpack(packed))
    if time > log_time then
      break
    end
    passed = passed + 1
    local kind, name = string.match(suffix, '^(%a+):(.*)$')
    if kind == 'hold' then
      local value = redis.call('HGET', holds_key, name)
      if value and is_old(kind, value) then
        redis.call('HDEL', holds_key, name)
      end
    else
      local value = redis.call('GET', base .. suffix)
      if value and is_old(kind, value) then
        redis.call('DEL', base .. suffix)
      end
    end
  end
  redis.call('LTRIM', forget_key, passed, -1)
end

redis.call('HSET', KEYS[1], 'building', '1')
for _, of_tenant in pairs(stocks) do
  for _, stock in pairs(of_tenant) do
    if stock.is_other then
      redis.call('HSET', base .. 'stock:' .. stock.name, 'on_hand', int(stock.on_hand), 'held', int(stock.held),
        'allocated', int(stock.allocated), 'version', int(stock.version), 'safety_stock', int(stock.safety),
        'max_per_user', stock.max and int(stock.max) or '')
    elseif stock.dirty then
      redis.call('HSET', base .. 'stock:' .. stock.name, 'held', int(stock.held), 'version', int(stock.version))
    end
    local there, gone = {}, {}
    for user in pairs(stock.changed) do
      if stock.units[user] ~= 0 then
        there[#there + 1], there[#there + 2] = user, int(stock.units[user])
      else
        gone[#gone + 1] = user
      end
    end
    in_chunks('HSET', base .. 'limit:' .. stock.name, there)
    in_chunks('HDEL', base .. 'limit:' .. stock.name, gone)
  end
end
in_chunks('SADD', skus_key, new_skus)
local cells, gone, due, done = {}, {}, {}, {}
for id, hold in pairs(holds) do
  if hold.gone and not hold.cell then
    gone[#gone + 1], done[#done + 1] = id, id
  elseif hold.dirty then
    cells[#cells + 1], cells[#cells + 2] = id, hold.packed or pack_hold(hold.cell)
    if DUE[hold.cell[STATE]] then
      due[#due + 1], due[#due + 2] = int(hold.cell[EXPIRES]), id
    elseif hold.done then
      done[#done + 1] = id
    end
  end
end
in_chunks('HSET', holds_key, cells)
in_chunks('HDEL', holds_key, gone)
in_chunks('ZADD', due_key, due)
in_chunks('ZREM', due_key, done)

for id, part in pairs(parts) do
  if part.dirty then
    redis.call('SET', base .. 'part:' .. id, cmsgpack.pack(part.cell))
    redis.call(PART_KEPT[part.cell[PART_STATE]] and 'SADD' or 'SREM', parts_key, id)
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

-- Remember, and forget what is old.
for suffix, memory in pairs(remembered) do
  if memory and memory.new then
    redis.call('SET', base .. suffix, cmsgpack.pack({ memory[1], memory[2] }))
  end
end
in_chunks('RPUSH', forget_key, forget)
forget_old()
remember_requests()
in_chunks('HDEL', journal_key, trim)
in_chunks('HSET', journal_key, journal)
redis.call('HSET', KEYS[1], 'fence', int(fence), 'log_time', int(log_time), 'holds', redis.call('HLEN', holds_key))
redis.call('HDEL', KEYS[1], 'building')

-- Reply.
return { 'OK', unpack(outcomes) }

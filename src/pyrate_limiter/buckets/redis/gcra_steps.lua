-- The rest of gcra.lua: any steps, under any rates.

local abandoned = @abandoned@ -- ms that a reservation may be overdue
local most_rooms = 32 -- that are remembered

local rates, fields, emission, burst = 0, {}, {}, {}
for each, all in string.gmatch(ARGV[1], '(%d+)/(%d+)') do
  rates = rates + 1
  fields[rates], emission[rates], burst[rates] = 'tat' .. rates, tonumber(each), tonumber(all)
end
fields[rates + 1] = 'open'
local stored = call('HMGET', key, unpack(fields))
if not stored[1] then at = nil end
if stamp == '=' then now = at or now end
local tats, gone, open = {}, {}, stored[rates + 1] or ''
for i = 1, rates do tats[i] = tonumber(stored[i] or nil) or 0 end

-- The same short way for several steps and rates, and as many of the steps as come first.
local reply, place, taken, owing = {format('%d', now)}, 2, false, 0
if open == '' and not hold and not (at and at > now) then
  local start = now * 1000
  repeat
    local kind, weight, patience = match(ARGV[place], '^(%a+) (%d+) (%S+)')
    if kind ~= 'reserve' and kind ~= 'take' then break end
    weight, patience = tonumber(weight), tonumber(patience)
    local failing, wait = 0, 0
    for i = 1, weight > 0 and rates or 0 do
      if weight > burst[i] then
        failing, wait = i, -1
        break
      end
      local early = max(tats[i] - start, 0) + (weight - burst[i]) * emission[i]
      if early > 0 then
        failing, wait = failing == 0 and i or failing, max(wait, ceil(early / 1000))
      end
    end
    if wait > 0 and wait <= patience then break end
    local charged = wait == 0 and patience >= 0 and weight or 0
    local free, reset = math.huge, 0
    for i = 1, rates do
      local debt = max(tats[i] - start, 0) + charged * emission[i]
      free, reset = math.min(free, burst[i] - ceil(debt / emission[i])), max(reset, debt)
      if charged > 0 then tats[i] = start + debt end
    end
    taken, owing = taken or charged > 0, ceil(reset / 1000)
    reply[place] = format('%d %d 0 %d %d', failing, wait, max(free, 0), ceil(reset / 1000))
    place = place + 1
  until place > count
  if place > count then
    reply = table.concat(reply, ' ')
    if taken then
      for i = 1, rates do call('HSET', key, fields[i], format('%d', tats[i])) end
      keep(reply, owing)
    end
    return reply
  end
end

local function save(values, reply, longest) -- and keep the reply
  local size = #values
  for i = 1, rates do
    values[size + 2 * i - 1], values[size + 2 * i] = fields[i], format('%d', tats[i])
    longest = max(longest, tats[i] / 1000 - now)
  end
  call('HSET', key, unpack(values))
  if stamp ~= '=' or at then try('HSET', beside, 'at', format('%d', now)) end
  try('HSET', beside, slot, noted_as(reply))
  life = format('%d', max(life, ceil(longest), call('PTTL', key))) -- reservations may last longer
  call('PEXPIRE', key, life)
  try('PEXPIRE', beside, life)
  return reply
end

local begin, old_until, new_until, old, new, rest, given_back =
  match(open, '^(%S+) (%S+) (%S+) (%S+) (%S+) ([^;]*);?(.*)$')
begin, old_until, new_until = tonumber(begin) or 0, tonumber(old_until) or 0, tonumber(new_until) or 0
old, new = tonumber(old) or 0, tonumber(new) or 0
for number in string.gmatch(rest or '', '%S+') do gone[#gone + 1] = tonumber(number) end
for i = #gone + 1, gone[1] and rates or 0 do gone[i] = tats[i] end -- others may have fewer rates
local room = {} -- {moment, units} that were given back in front of others, in order
for moment, units in string.gmatch(given_back or '', '(%S+) (%S+)') do
  room[#room + 1] = {tonumber(moment), tonumber(units)}
end
local changed = taken
local held, length = match(hold or '', '^(%S+) (%S+)$')
held, length = tonumber(held) or 0, tonumber(length) or 0

local function shift(ms) -- all times
  for i = 1, rates do
    tats[i] = math.max(0, tats[i] + ms * 1000)
    if gone[i] then gone[i] = math.max(0, gone[i] + ms * 1000) end
  end
  for _, free in ipairs(room) do free[1] = free[1] + ms end
  begin, old_until, new_until, held = begin + ms, old_until + ms, new_until + ms, held + ms
end

if at and at > now then
  -- Of two callers that stamp by themselves the older stamp may come second. Their clock tells
  -- whether that is so.
  local late, reading = tonumber(tolerance), tonumber(stamp) and (tonumber(given) or server_time())
  if at - now <= late or reading and at - reading <= late and reading - at < @latest@ then
    now = at
  else -- the clock has stepped back, and takes what is owed with it
    shift(now - at)
    changed = true -- also where all is refused: the next one must find time passing
  end
end
held = max(now, math.min(held, now + length)) -- no longer than it was, whatever the clock does
local now_us = now * 1000

local function give_back(weight)
  for i = 1, rates do
    local least = gone[i] and gone[i] + (old + new) * emission[i] or 0
    tats[i] = math.max(least, tats[i] - weight * emission[i])
  end
  if old + new == 0 and gone[1] then tats, gone = gone, {} end
end

local function close_room(before) -- nobody uses it any more
  while room[1] and room[1][1] < before do give_back(table.remove(room, 1)[2]) end
end

close_room(now)
if old > 0 and old_until + abandoned < now then old = 0 end
if old == 0 and new > 0 and new_until + abandoned < now then
  old, new, old_until = 0, 0, new_until
end
if old + new == 0 then gone = {} end

local function add(units, moment) -- open ones
  if old + new == 0 then
    begin = now
  elseif old == 0 then
    begin = max(begin, math.min(old_until, now))
  end
  if old == 0 and moment > old_until then
    old, new, old_until, new_until = new, 0, new_until, 0
  end
  if moment <= old_until then
    old = old + units
  else
    new, new_until = new + units, math.max(new_until, moment)
  end
end

local function take_out(units, moment) -- false where they are not open
  if moment <= begin then return false end
  if moment <= old_until then
    if old < units then return false end
    old = old - units
  elseif new >= units then
    new = new - units
  elseif old >= units then -- the clock has stepped back since
    old = old - units
  else
    return false
  end
  changed = true
  return true
end

-- ms from a moment on until the weight fits behind these arrival times, and the rate in the way.
local function next_fit(times, moment, weight)
  local failing, wait = 0, 0
  for i = 1, rates do
    local early = math.max(times[i], moment * 1000) + (weight - burst[i]) * emission[i] - moment * 1000
    if early > 0 then
      failing, wait = failing == 0 and i or failing, math.max(wait, math.ceil(early / 1000))
    end
  end
  return wait, failing
end

local function owed() -- the arrival times if all who have not gone go as soon as they may
  local times = {}
  for i = 1, rates do
    times[i] = tats[i]
    if gone[i] then
      times[i] = math.max(times[i], math.max(gone[i], held * 1000) + (old + new) * emission[i])
    end
  end
  return times
end

local function next_room(weight) -- what was given back, and is enough; its place
  for place, free in ipairs(room) do
    if free[2] >= weight and free[1] >= held then
      return next_fit(gone, free[1], weight) == 0 and free, place
    end
  end
end

local function charge(times, moment, weight)
  for i = 1, rates do times[i] = math.max(times[i], moment * 1000) + weight * emission[i] end
end

local function remaining_and_reset()
  local free, reset = math.huge, 0
  for i = 1, rates do
    local debt = math.max(0, tats[i] - now_us)
    free, reset = math.min(free, burst[i] - math.ceil(debt / emission[i])), math.max(reset, debt)
  end
  if held > now then return 0, max(held - now, ceil(reset / 1000)) end
  return math.max(0, free), math.ceil(reset / 1000)
end

local steps = {}

function steps.reserve(weight, patience, pad)
  for i = 1, rates do
    if weight > burst[i] then return i, -1, 0 end
  end
  if weight == 0 then return 0, 0, 0 end
  local free, place = next_room(weight)
  if free then
    local wait = free[1] - now
    if wait > max(0, patience) or patience < 0 then return wait > 0 and 1 or 0, wait, 0 end
    free[2], changed = free[2] - weight, true
    if free[2] == 0 then table.remove(room, place) end
    if wait > 0 then add(weight, free[1]) else charge(gone, now, weight) end
    return 0, wait, 0
  end
  local times, newest = owed(), old + new > 0 and math.max(old_until, new_until) or 0
  local wait, failing = next_fit(times, held, weight)
  wait = wait + held - now
  if now + wait < newest then wait = newest - now end
  if wait > 0 then failing = max(failing, 1) end
  if wait > math.max(0, patience) or patience < 0 then return wait > 0 and failing or 0, wait, 0 end
  local slack = wait > 0 and now + wait > newest and math.min(pad, patience - wait) or 0
  wait = wait + slack
  if wait > 0 then
    for i = 1, rates do gone[i] = gone[i] or tats[i] end
    add(weight, now + wait)
  elseif gone[1] then
    charge(gone, now, weight)
  end
  tats, changed = times, true
  charge(tats, now + wait, weight)
  return 0, wait, slack
end

function steps.take(weight) return steps.reserve(weight, 0, 0) end

function steps.confirm(weight, moment, patience)
  if old + new == 0 or not take_out(weight, moment) then
    return steps.reserve(weight, patience, 0) -- dropped as too old, or flushed
  end
  local from = now
  if moment <= math.max(old_until, new_until) then -- who wakes early is taken at his word
    from = math.max(now, moment)
  end
  local start = max(from, held)
  local wait, failing = next_fit(gone, start, weight)
  wait = start + wait > from and start + wait - now or 0
  if wait > patience then
    give_back(weight)
    return max(failing, 1), wait, 0
  end
  if wait > 0 then
    add(weight, now + wait)
    return 0, wait, 0
  end
  charge(gone, from, weight)
  for i = 1, rates do tats[i] = math.max(tats[i], gone[i] + (old + new) * emission[i]) end
  if old + new == 0 then
    if room[1] then tats, room = gone, {} end -- nobody is behind it
    gone = {}
  end
  return 0, 0, 0
end

function steps.cancel(weight, moment)
  local found = true
  if moment > 0 then
    found = old + new > 0 and take_out(weight, moment)
  elseif gone[1] then
    for i = 1, rates do gone[i] = math.max(0, gone[i] - weight * emission[i]) end
  end
  if found then
    changed = true
    local is_last = moment >= max(old_until, new_until)
    if old + new > 0 and moment > now and not is_last and #room < most_rooms then
      room[#room + 1] = {moment, weight}
      table.sort(room, function(one, other) return one[1] < other[1] end)
    elseif old + new == 0 then
      room = {}
      give_back(weight)
    else
      if is_last then close_room(math.huge) end -- nobody is behind it
      give_back(weight)
    end
  end
  return found and weight or 0, 0, 0
end

function steps.hold(_, ms)
  local stood = held > now and 1 or 0
  changed = true
  if ms < 0 then
    held = now
  elseif now + ms > held then
    held, length = now + ms, ms
  end
  return stood, held - now, 0
end

reply[1] = format('%.0f', now)
for number = place, #ARGV do
  local kind, weight, a, b = match(ARGV[number], '^(%a+) (%d+) (%S+) (%S+) ')
  local verdict, wait, slack = steps[kind](tonumber(weight), tonumber(a), tonumber(b))
  local free, reset = remaining_and_reset()
  reply[number] = format('%d %.0f %.0f %.0f %.0f', verdict, wait, slack, free, reset)
end
reply = table.concat(reply, ' ')
if not changed then return reply end
local values = {}
if old + new > 0 then
  local words = {begin, old_until, new_until, old, new}
  for i = 1, rates do words[5 + i] = gone[i] end
  for i = 1, #words do words[i] = format('%.0f', words[i]) end
  for i, free in ipairs(room) do
    words[#words + 1] = format(i == 1 and ';%.0f %.0f' or '%.0f %.0f', free[1], free[2])
  end
  values = {'open', table.concat(words, ' ')}
elseif open ~= '' then
  call('HDEL', key, 'open')
end
if held > now then
  call('HSET', beside, 'hold', format('%.0f %.0f', held, length))
elseif hold then
  call('HDEL', beside, 'hold')
end
return save(values, reply, held - now)

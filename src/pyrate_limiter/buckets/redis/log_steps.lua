-- The rest of log.lua: every step, one after the other.

local stored = 0 -- units, by the steps below
local newest, top = unit(0)
local gapless -- from which weight on there is no room before others, where that is known
-- What is ahead of the clock: the marks by label, and the units that go without asking again.
-- Looked up once, where it is needed.
local ahead, sure

local function store(step, mark, moment, first)
  local prefix = step.label .. mark .. ':'
  insert(prefix, first or 1, step.weight, text(moment))
  if not newest or moment >= newest then newest, top = moment, prefix .. 1 end
  stored = stored + step.weight
end

local function remove(step, mark, first)
  local gone = 0
  each(step.label .. mark .. ':', first or 1, step.weight, function(members)
    gone = gone + call('ZREM', key, unpack(members))
  end)
  newest, top, gapless = unit(0)
  if goes_unasked(mark) then sure = nil end
  return gone
end

-- What is ahead of the clock comes back with it. Of very much only the last is kept: a step may let
-- some more through, but must not hold up the server.
local function step_back()
  local ahead, back = nil, 0
  if count_ahead_of(now) <= @most_units@ then
    ahead = ahead_of(now, @most_units@)
  else
    ahead = units(0, @most_units@)
    call('UNLINK', key)
  end
  for i = 1, #ahead, 2 do
    local wait = reserved(ahead[i])
    if wait then back = math.max(back, ahead[i + 1] - wait - now) end
  end
  for i = 1, #ahead, 2 do
    local moment = reserved(ahead[i]) and math.max(now, ahead[i + 1] - back) or now
    call('ZADD', key, text(moment), ahead[i])
  end
  newest, top = unit(0)
end

-- Whether a time after `now` is no sign that the clock has stepped back: of two callers that stamp
-- by themselves the older stamp may come second.
local function is_of_another(time)
  local ahead = time - clock
  return stamp and (time - now <= intervals[1] or ahead <= intervals[1] and -ahead < @latest@)
end

if newest and newest > now then
  local latest = newest - (reserved(top) or 0) -- what the clock read when that was stored
  if latest > now then
    if is_of_another(latest) then now = latest else step_back() end
  end
end
local began = held - length
if found and began > now and not is_of_another(began) then
  held = now + length -- no longer than it was, whatever the clock does
end
held = math.max(held, now)
reply[1] = text(now)

local function too_heavy(weight)
  for i = 1, rates do
    if weight > limits[i] then return i end
  end
end

-- The first moment from `moment` on at which the weight fits behind what is stored by then; the
-- rate in the way; and whether a reservation decided, whose waiter may yet turn out to be late. In
-- fixed windows, if `whole`, what is stored later in a window counts too.
local function next_fit(moment, weight, whole)
  local failing, unsure, i = nil, false, 1
  while not sliding and i <= rates do
    local start = moment - moment % intervals[i]
    local upto = whole and start + intervals[i] - 1 or moment
    if call('ZCOUNT', key, text(start), text(upto)) + weight > limits[i] then
      failing, moment, i = failing or i, start + intervals[i], 1
    else
      i = i + 1
    end
  end
  if not sliding then return moment, failing, false end
  for _ = 1, @rounds@ do
    local fits = moment
    local behind = newest and newest > moment and count_ahead_of(moment) or 0
    for i = 1, rates do
      local time, member = unit(behind + limits[i] - weight)
      if time and time + intervals[i] >= moment then
        failing, fits = failing or i, math.max(fits, time + intervals[i] + 1)
        unsure = unsure or reserved(member) ~= nil
      end
    end
    if fits == moment then break end
    moment = fits
    if behind == 0 then break end
  end
  return moment, failing, unsure
end

local function usual_pad(rate) return math.min(@largest_pad@, math.floor(intervals[rate] / @pads@)) end

-- The latest time at which something may be put in before a unit that is to stay where it is. Who
-- goes without asking again is kept clear of by a pad.
local function latest_before(time, member, rate)
  local early = string.find(member, '%+%d+:%d+$') and usual_pad(1) + 1 or 0
  return time - early - intervals[rate] - 1
end

-- Where a reservation was given back there is room before others: the first moment from `from` on at
-- which the weight fits and leaves all later units where they are, and how much later that holds.
-- A unit stays if what is put in is older by an interval, or if the one that will then be `limit`
-- places before it is. It looks at the last units only.
local function gap(from, weight)
  for i = 1, rates do
    local time = unit(limits[i] - weight)
    if time and latest_before(newest, top, i) < math.min(time, from) then return end
  end
  local places = math.min(@looks@, count_ahead_of(from))
  local later, before, upto, fits, room = units(0, places + 1), {}, math.huge, nil, nil
  for i = 1, rates do before[i] = units(limits[i] - weight, places + 1) end
  for place = 1, places do
    if string.find(later[2 * place - 1], '=%d+:%d+$') then break end
    local time, moment = tonumber(later[2 * place]), tonumber(later[2 * place + 2] or from)
    moment = math.max(from, moment)
    for i = 1, rates do
      local here, next = tonumber(before[i][2 * place]), tonumber(before[i][2 * place + 2])
      local latest = latest_before(time, later[2 * place - 1], i)
      if here and latest < here then upto = math.min(upto, latest) end
      if next then moment = math.max(moment, next + intervals[i] + 1) end
    end
    if upto < from then break end
    local last = math.min(upto, time)
    if moment <= last and moment < newest then fits, room = moment, last - moment end
  end
  return fits, room
end

local function look_ahead()
  ahead, sure = {}, {}
  local found = ahead_of(now, 1000)
  for k = 1, #found, 2 do
    local whose, mark = match(found[k], '^(.*)([-+=]%d+):%d+$')
    if whose then
      ahead[whose] = mark
      if goes_unasked(mark) then
        sure[#sure + 1] = {member = found[k], time = tonumber(found[k + 1])}
      end
    end
  end
end

-- The first moment from `from` on for a waiter that is late: behind those who have gone by then,
-- and without moving one that will go without asking.
local function late_fit(from, weight)
  local moment, failing = next_fit(from, weight)
  if not newest or newest <= moment then return moment, failing end
  if not sure then look_ahead() end
  for _, other in ipairs(sure) do
    local place = other.time > moment and count_ahead_of(other.time)
    for i = 1, place and rates or 0 do
      local here = unit(place + limits[i] - weight)
      if here and latest_before(other.time, other.member, i) < math.min(here, moment) then
        moment, failing = next_fit(math.max(moment, other.time), weight), failing or i
      end
    end
  end
  return moment, failing
end

-- Where a reservation goes, from `from` on: the moment, the rate in the way, whether another
-- reservation decided, and, where it goes before others, how much later it may be.
local function earliest(from, weight)
  if not newest or newest <= from then return next_fit(from, weight) end
  local fits, room
  if sliding then
    if not gapless or weight < gapless then
      fits, room = gap(from, weight)
      if not fits and from == now then gapless = weight end
    end
  elseif newest - from < @rounds@ * intervals[1] then -- in a window in which others have reserved
    fits = next_fit(tonumber(ahead_of(from, 1)[2]), weight, true)
    room = fits < newest and 0
  end
  if room then return fits, fits > from and 1 or nil, true, room end
  local moment, failing = next_fit(newest, weight)
  return moment, failing or 1, true
end

local function start_of(rate) -- the first moment that counts under it now
  return now - (sliding and intervals[rate] or now % intervals[rate])
end

local function remaining_and_reset() -- units still free, and ms until nothing counts any more
  local free, reset = nil, 0
  for i = 1, rates do
    local start = start_of(i)
    local live = newest and newest >= start and call('ZCOUNT', key, text(start), '+inf') or 0
    free = math.max(0, math.min(free or limits[i], limits[i] - live))
    if live > 0 then
      local last = math.max(now, newest)
      local over = sliding and newest + intervals[i] + 1 or last - last % intervals[i] + intervals[i]
      reset = math.max(reset, over - now)
    end
  end
  if held > now then return 0, math.max(reset, held - now) end
  return free, reset
end

local steps = {}

local function mark_ahead(label)
  if not ahead then look_ahead() end
  local mark = ahead[label]
  ahead[label] = nil
  return mark
end

function steps.reserve(step, floor)
  local weight, patience, pad = step.weight, step.a, step.b
  local heavy = too_heavy(weight)
  if heavy then return heavy, -1, 0 end
  if weight == 0 then return 0, 0, 0 end
  local from = math.max(held, math.min(floor or now, newest or now))
  local fits, failing, unsure, room = earliest(from, weight)
  local wait, slack = fits - now, 0
  if wait == 0 and patience < 0 then return 0, 0, 0 end
  if wait > 0 then
    failing = failing or 1
    if patience >= 0 then -- it may be that it comes for the second time
      if call('ZSCORE', key, step.label .. ':1') then return 0, 0, 0 end
      local mark = newest and newest > now and mark_ahead(step.label)
      if mark and remove(step, mark) > 0 then return steps.reserve(step, floor) end
    end
    if wait > patience then return failing, wait, 0 end
    if not room and newest and fits <= newest then room = 0 end
    if pad < 0 then pad = usual_pad(failing) end
    slack = math.min(pad, patience - wait, room or pad)
    unsure = unsure or newest and (newest > now or fits > newest and reserved(top))
    wait = wait + slack
  end
  if wait > 0 and not unsure then sure = nil end
  store(step, wait > 0 and (unsure and '-' or '+') .. text(wait) or '', now + wait)
  return 0, wait, unsure and -1 or slack
end

function steps.part(step)
  local first, left = step.b, step.a
  if call('ZSCORE', key, step.label .. ':' .. text(first)) then return 0, 0, 0 end
  local fits, failing = earliest(held, left)
  if fits > now then return failing or 1, fits - now, 0 end
  store(step, '', now, first)
  return 0, 0, 0
end

local floor, refused

function steps.after(step)
  floor, refused = step.a, false
  return 0, 0, 0
end

function steps.next(step)
  if refused then return -1, 0, 0 end
  local verdict, wait, slack = steps.reserve(step, floor)
  floor, refused = math.max(floor, now + wait), verdict ~= 0
  return verdict, wait, slack
end

function steps.confirm(step)
  local mark, weight = step.mark, step.weight
  local due = tonumber(call('ZSCORE', key, step.label .. mark .. ':1') or nil)
  if not due then -- flushed, or dropped as too old, or confirmed before: else it is reserved anew
    if call('ZSCORE', key, step.label .. ':1') then return 0, 0, 0 end
    if call('ZSCORE', key, step.label .. '=' .. string.sub(mark, 2) .. ':1') then return 0, 0, 1 end
    step.a, step.b = step.b, 0
    local verdict, further, slack = steps.reserve(step)
    return verdict, further, further > 0 and slack or 0
  end
  remove(step, mark)
  local fits, failing = late_fit(math.max(held, due), weight)
  if fits <= now then
    store(step, '', fits)
    return 0, 0, 0
  end
  if fits == due then
    store(step, '=' .. string.sub(mark, 2), fits)
    return 0, 0, 1
  end
  local wait = fits - now
  if wait > step.b then return failing or 1, wait, 0 end
  store(step, '-' .. text(wait), fits)
  return 0, wait, -1
end

function steps.cancel(step) return remove(step, step.mark, step.b), 0, 0 end

function steps.hold(step) return hold(step.a, step.label) end

function steps.forget(step)
  local gone = remove(step, '', 1)
  local mark = gone == 0 and mark_ahead(step.label)
  return mark and remove(step, mark, 1) or gone, 0, 0
end

local function leak(most)
  local bound = now
  for i = 1, rates do bound = math.min(bound, start_of(i)) end
  local old = math.min(most, call('ZCOUNT', key, '-inf', '(' .. text(bound)))
  if old > 0 then call('ZREMRANGEBYRANK', key, 0, text(old - 1)) end
end

for place = at, #ARGV do
  local kind, weight, a, b, label = match(ARGV[place], '^(%a+) (%d+) (%S+) (%S+) (.*)$')
  local step = {label = label, weight = tonumber(weight), a = tonumber(a), b = tonumber(b)}
  step.mark = a == '0' and '' or a
  timed = timed or (kind ~= 'cancel' and kind ~= 'forget')
  local verdict, wait, slack = steps[kind](step)
  local free, reset = 0, 0
  if kind == 'reserve' or kind == 'next' then free, reset = remaining_and_reset() end
  reply[#reply + 1] = format('%d %d %d %d %d', verdict, wait, slack, free, reset)
end

if not timed and found then -- what is given back is stamped with the moment that it was reserved for
  call('ZADD', key, found[1], '~hold', found[2], '~hold+')
  if found[3] > 0 and call('PTTL', key) < 0 then -- there was nothing else in it
    call('PEXPIRE', key, text(found[3]))
  end
elseif held > now then
  call('ZADD', key, text(held), '~hold', text(held + length), '~hold+')
elseif ended then -- the key was to outlive the hold, and is not cleaned up while it is to live so long
  local usual, left = math.max((newest or now) - now, 0) + longest + extra_ms(longest), call('PTTL', key)
  if left > usual and left <= ended + extra_ms(math.huge) or left < 0 then
    call('PEXPIRE', key, text(usual))
  end
end
if stored > 0 or held > now then
  local longer, left = extra_ms(longest), call('PTTL', key)
  local life = math.max((newest or now) - now + longest, held - now) + longer
  if stamp then life = math.max(life, 3600000) end
  if left < life - longer / 2 then call('PEXPIRE', key, text(life)) end
  if left <= life and is_crowded(limits[rates]) then leak(@most_units@ + stored) end
end
return table.concat(reply, ' ')

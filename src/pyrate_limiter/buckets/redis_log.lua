-- Steps on the log of units in KEYS[1], all of them at one time, in the order given.
--
-- The log is a sorted set: one member per unit, scored with its time in ms. A member reads
-- "name:id:number"; that of a claim "name:id-wait:number", with the ms that it had to wait when
-- it was made. So a unit ahead of the clock is a claim where it is not further ahead than its
-- wait; otherwise it is a leftover of a clock that has stepped back, or of a writer whose clock
-- is fast.
--
-- ARGV: a line of the stamp to judge by, '~' for the server's clock; the caller's clock, '~'
--   likewise; 1 for sliding windows, 0 for fixed ones; then limit/interval of each rate.
--   Then one for each step: its kind, weight, two numbers of its own, and "name:id":
--     claim    patience (-1: only look), pad (-1: 5 % of the interval that is short, at most 50)
--     settle   patience, the wait in the claim's members
--     release  the wait in the members
--     forget   drop what is stored under ":id", claimed or not
--     leak
-- Reply: a line of numbers: the time, then five for each step:
--   claim, settle: the rate that refused or 0; ms until it fits, -1 for never; ms between the
--     earliest moment and the one given, -1 for "ask again then" (settle: 1 where the claim was
--     gone); units left; ms until all is over
--   others: how many units are gone; four zeros
local key, call, match, format = KEYS[1], redis.call, string.match, string.format

-- The way of nearly every call: claims that fit at once, by the server's clock, with nothing ahead
-- of it. This says what the rest would say, at a fraction of the price, of as many as come first.
local header, reply, at, clock = ARGV[1], {}, 2, nil
if string.byte(header) == 126 then
  local time = call('TIME')
  clock = time[1] * 1000 + math.floor(time[2] / 1000)
  local score = format('%d', clock)
  if string.byte(header, 5) == 49 and call('ZCOUNT', key, '(' .. score, '+inf') == 0 then
    local free, limit, interval
    for most, length in string.gmatch(header, '(%d+)/(%d+)') do
      local left = most - call('ZCOUNT', key, format('%d', clock - length), '+inf')
      if not free or left < free then free = left end
      limit, interval = most, length
    end
    local scored, count = {}, #ARGV
    repeat
      local weight, label = match(ARGV[at], '^claim (%d+) %d+ %S+ (.*)$')
      weight = tonumber(weight)
      if not weight or weight == 0 or weight > free then break end
      label = label .. ':'
      local units = weight
      if count == 2 and weight == 1 then -- needs no tables
        call('ZADD', key, score, label .. '1')
        units = 0
      end
      for i = units, 1, -1 do -- the last ones first, for Redis sorts them in faster
        local filled = #scored
        if filled >= 200 then
          call('ZADD', key, unpack(scored))
          scored, filled = {}, 0
        end
        scored[filled + 1], scored[filled + 2] = score, label .. i
      end
      free = free - weight
      reply[at], at = format('0 0 0 %d %d', free, interval + 1), at + 1
    until at > count
    if scored[1] then call('ZADD', key, unpack(scored)) end
    if at > 2 then
      reply[1] = score
      call('PEXPIRE', key, format('%d', interval + math.min(interval, 60000) + 1000))
      -- Ids are random: one call in sixteen looks whether there is much to clean up.
      if string.byte(ARGV[2], -1) == 48 and call('ZCARD', key) > 2 * limit + 128 then
        call('ZREMRANGEBYSCORE', key, '-inf', format('(%d', clock - interval))
      end
      if at > count then return table.concat(reply, ' ') end
    end
  end
end

local function text(number) return format('%d', number) end

-- The members of an item, some at a time.
local function each(prefix, weight, use)
  for last = weight, 1, -100 do
    local members = {}
    for i = last, math.max(1, last - 99), -1 do members[#members + 1] = prefix .. i end
    use(members)
  end
end

local function insert(prefix, weight, score)
  each(prefix, weight, function(members)
    local scored = {}
    for i = 1, #members do scored[2 * i - 1], scored[2 * i] = score, members[i] end
    call('ZADD', key, unpack(scored))
  end)
end

local stamp, given, sliding = match(header, '^(%S+) (%S+) (%d)')
stamp, clock, sliding = tonumber(stamp), tonumber(given) or clock, sliding == '1'
if not clock then
  local time = call('TIME')
  clock = time[1] * 1000 + math.floor(time[2] / 1000)
end
local limits, intervals, rates = {}, {}, 0
for limit, interval in string.gmatch(header, '(%d+)/(%d+)') do
  rates = rates + 1
  limits[rates], intervals[rates] = tonumber(limit), tonumber(interval)
end
local now, longest = stamp or clock, intervals[rates]

local dirty = false

local function unit(place) -- so many places from the newest: its time and its member
  local found = call('ZREVRANGE', key, text(place), text(place), 'WITHSCORES')
  return tonumber(found[2]), found[1]
end

local function claimed(member) return member and tonumber(string.match(member, '%-(%d+):%d+$')) end

local newest, top = unit(0)

local function prefix_of(step, wait)
  return step.label .. (wait > 0 and '-' .. text(wait) or '') .. ':'
end

local function store(step, wait, moment)
  local prefix = prefix_of(step, wait)
  insert(prefix, step.weight, text(moment))
  if not newest or moment >= newest then newest, top = moment, prefix .. 1 end
  dirty = true
end

local function remove(step, wait)
  local gone = 0
  each(prefix_of(step, wait), step.weight, function(members)
    gone = gone + call('ZREM', key, unpack(members))
  end)
  newest, top = unit(0)
  return gone
end

local function step_back() -- what is ahead of the clock comes back with it
  local ahead = call('ZRANGEBYSCORE', key, '(' .. text(now), '+inf', 'WITHSCORES')
  local back = 0
  for i = 1, #ahead, 2 do
    local wait = claimed(ahead[i])
    if wait then back = math.max(back, ahead[i + 1] - wait - now) end
  end
  for i = 1, #ahead, 2 do
    local moment = claimed(ahead[i]) and math.max(now, ahead[i + 1] - back) or now
    call('ZADD', key, text(moment), ahead[i])
  end
  newest, top = unit(0)
end

if newest and newest > now then
  local latest = newest - (claimed(top) or 0) -- what the clock read when that was stored
  local behind = latest - now
  if behind > 0 then
    -- Of two callers that stamp by themselves the older stamp may come second.
    if stamp and (behind <= intervals[1] or (clock >= latest and clock - latest < 60000)) then
      now = latest
    else
      step_back()
    end
  end
end

reply[1] = text(now)

local function too_heavy(weight)
  for i = 1, rates do
    if weight > limits[i] then return i end
  end
end

-- The first moment from `moment` on at which the weight fits, as if the log ended there; the rate
-- in the way; and whether a claim decided, whose waiter may yet turn out to be late.
local function next_fit(moment, weight)
  local failing, unsure = nil, false
  if not sliding then
    local i = 1
    while i <= rates do
      local start = moment - moment % intervals[i]
      if call('ZCOUNT', key, text(start), text(moment)) + weight > limits[i] then
        failing, moment, i = failing or i, start + intervals[i], 1
      else
        i = i + 1
      end
    end
    return moment, failing, unsure
  end
  for _ = 1, 64 do
    local fits = moment
    local behind = 0
    if newest and newest > moment then
      behind = call('ZCOUNT', key, '(' .. text(moment), '+inf')
    end
    for i = 1, rates do
      local time, member = unit(behind + limits[i] - weight)
      if time and time + intervals[i] >= moment then
        failing, fits = failing or i, math.max(fits, time + intervals[i] + 1)
        unsure = unsure or claimed(member) ~= nil
      end
    end
    if fits == moment then break end
    moment = fits
    if behind == 0 then break end
  end
  return moment, failing, unsure
end

local function outlook() -- units still free, and ms until nothing counts any more
  local free, reset = nil, 0
  for i = 1, rates do
    local start = sliding and now - intervals[i] or now - now % intervals[i]
    local live = newest and newest >= start and call('ZCOUNT', key, text(start), '+inf') or 0
    free = math.max(0, math.min(free or limits[i], limits[i] - live))
    if live > 0 then
      local last = math.max(now, newest)
      local over = sliding and newest + intervals[i] + 1 or last - last % intervals[i] + intervals[i]
      reset = math.max(reset, over - now)
    end
  end
  return free, reset
end

local steps = {}

function steps.claim(step)
  local weight, patience, pad = step.weight, step.a, step.b
  local heavy = too_heavy(weight)
  if heavy then return heavy, -1, 0 end
  if weight == 0 then return 0, 0, 0 end
  local queue = newest and newest > now
  local fits, failing, unsure = next_fit(queue and newest or now, weight)
  if queue then failing, unsure = failing or 1, true end
  local wait = fits - now
  if wait > patience then return patience < 0 and wait == 0 and 0 or failing, wait, 0 end
  local slack = 0
  if wait > 0 then
    if not newest or fits > newest then
      if pad < 0 then pad = math.min(50, math.floor(intervals[failing] / 20)) end
      slack = math.min(pad, patience - wait)
      unsure = unsure or claimed(top) ~= nil
    end
    wait = wait + slack
  end
  store(step, wait, now + wait)
  return 0, wait, unsure and -1 or slack
end

function steps.settle(step)
  local wait = step.b
  local stored = tonumber(call('ZSCORE', key, prefix_of(step, wait) .. 1) or nil)
  if not stored then -- flushed, or dropped as too old: it is claimed anew
    step.b = 0
    local verdict, further, slack = steps.claim(step)
    return verdict, further, further == 0 and 1 or slack
  end
  remove(step, wait)
  local fits, failing = next_fit(math.max(now, stored), step.weight)
  if fits == stored or fits <= now then
    store(step, wait, fits)
    return 0, 0, 0
  end
  if fits - now > step.a then return failing or 1, fits - now, 0 end
  store(step, fits - now, fits)
  return 0, fits - now, -1
end

function steps.release(step) return remove(step, step.a), 0, 0 end

function steps.forget(step)
  local gone = 0
  for _, member in ipairs(call('ZRANGEBYSCORE', key, text(now - longest), '+inf')) do
    if string.find(member, step.label, 1, true) then gone = gone + call('ZREM', key, member) end
  end
  newest, top = unit(0)
  return gone, 0, 0
end

local function leak()
  local bound = now
  for i = 1, rates do
    bound = math.min(bound, now - (sliding and intervals[i] or now % intervals[i]))
  end
  return call('ZREMRANGEBYSCORE', key, '-inf', '(' .. text(bound))
end

function steps.leak() return leak(), 0, 0 end

for place = at, #ARGV do
  local kind, weight, a, b, label = match(ARGV[place], '^(%a+) (%d+) (%S+) (%S+) (.*)$')
  local step = {label = label, weight = tonumber(weight), a = tonumber(a), b = tonumber(b)}
  local verdict, wait, slack = steps[kind](step)
  local free, reset = 0, 0
  if kind == 'claim' then free, reset = outlook() end
  reply[#reply + 1] = format('%d %d %d %d %d', verdict, wait, slack, free, reset)
end

if dirty then
  if call('ZCARD', key) > 2 * limits[rates] + 128 then leak() end
  -- Kept a little longer than it counts. A clock of the caller's own may be slower than ours.
  local life = newest - now + longest + math.min(longest, 60000) + 1000
  call('PEXPIRE', key, text(stamp and math.max(life, 3600000) or life))
end
return table.concat(reply, ' ')

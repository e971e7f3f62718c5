-- Steps on the log of units in KEYS[1], all of them at one time, in the order given.
--
-- The log is a sorted set: one member per unit, scored with its time in ms. A member reads
-- "name:id:number"; that of a claim "name:id-wait:number", with the ms that it had to wait when
-- it was made. So a unit ahead of the clock is a claim where it is not further ahead than its
-- wait; otherwise it is a leftover of a clock that has stepped back, or of a writer whose clock
-- is fast.
--
-- ARGV: a line of numbers: the stamp to judge by, '~' for the server's clock; the caller's clock,
--   '~' likewise; 1 for sliding windows, 0 for fixed ones; then limit and interval of each rate.
--   Then three for each step: a line of kind, weight and two numbers of its own; name; id:
--     claim    patience (-1: only look), pad (-1: 5 % of the interval that is short, at most 50)
--     settle   patience, the wait in the claim's members
--     release  the wait in the members
--     forget   drop what is stored under the id, claimed or not
--     leak
-- Reply: a line of numbers: the time, then five for each step:
--   claim, settle: the rate that refused or 0; ms until it fits, -1 for never; ms between the
--     earliest moment and the one given, -1 for "ask again then" (settle: 1 where the claim was
--     gone); units left; ms until all is over
--   others: how many units are gone; four zeros
local key, call = KEYS[1], redis.call
local function words(line)
  local found = {}
  for word in string.gmatch(line, '%S+') do found[#found + 1] = word end
  return found
end

local header = words(ARGV[1])
local stamp, clock, sliding = tonumber(header[1]), tonumber(header[2]), header[3] == '1'
local limits, intervals, rates = {}, {}, (#header - 3) / 2
for i = 1, rates do
  limits[i], intervals[i] = tonumber(header[2 + 2 * i]), tonumber(header[3 + 2 * i])
end
if not clock then
  local time = call('TIME')
  clock = time[1] * 1000 + math.floor(time[2] / 1000)
end
local now, dirty = stamp or clock, false

-- The way of nearly every call: one light item that fits at once, behind nothing ahead of now.
-- It says what the rest of the script would say, at half its price.
local only = #ARGV == 4 and words(ARGV[2])
if sliding and only and only[1] == 'claim' then
  local weight, edge = tonumber(only[2]), string.format('%.0f', now)
  local found = call('ZREVRANGE', key, '0', '0', 'WITHSCORES')
  local free
  local behind = not found[2] or tonumber(found[2]) <= now
  if behind and weight > 0 and weight <= 8 and tonumber(only[3]) >= 0 then
    for i = 1, rates do
      local live = 0
      if found[2] then
        live = call('ZCOUNT', key, string.format('%.0f', now - intervals[i]), '+inf')
      end
      local left = limits[i] - live - weight
      free = math.min(free or left, left)
      if free < 0 then break end
    end
  end
  if free and free >= 0 then
    local prefix = ARGV[3] .. ':' .. ARGV[4] .. ':'
    if weight == 1 then
      call('ZADD', key, edge, prefix .. '1')
    else
      local scored = {}
      for i = 1, weight do scored[2 * i - 1], scored[2 * i] = edge, prefix .. i end
      call('ZADD', key, unpack(scored))
    end
    local longest = intervals[rates]
    local life = longest + math.min(longest, 60000) + 1000
    if stamp then life = math.max(life, 3600000) end
    call('PEXPIRE', key, string.format('%.0f', life))
    -- Ids are random: one call in sixteen looks whether there is much to clean up.
    if string.sub(ARGV[4], -1) == '0' and call('ZCARD', key) > 2 * limits[rates] + 128 then
      call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', now - longest))
    end
    return string.format('%.0f 0 0 0 %.0f %.0f', now, free, longest + 1)
  end
end

local function text(number) return string.format('%.0f', number) end

local function unit(place) -- so many places from the newest: its time and its member
  local found = call('ZREVRANGE', key, text(place), text(place), 'WITHSCORES')
  return tonumber(found[2]), found[1]
end

local function claimed(member) return member and tonumber(string.match(member, '%-(%d+):%d+$')) end

local newest, top = unit(0)

local function each(step, wait, use) -- the members of a step, some hundred at a time
  local prefix = step.name .. ':' .. step.id .. (wait > 0 and '-' .. text(wait) or '') .. ':'
  for from = 1, step.weight, 500 do
    local members = {}
    for i = from, math.min(from + 499, step.weight) do members[#members + 1] = prefix .. i end
    use(members)
  end
  return prefix .. '1'
end

local function store(step, wait, moment)
  local score = text(moment)
  local member = each(step, wait, function(members)
    local scored = {}
    for i, name in ipairs(members) do scored[2 * i - 1], scored[2 * i] = score, name end
    call('ZADD', key, unpack(scored))
  end)
  if not newest or moment >= newest then newest, top = moment, member end
  dirty = true
end

local function remove(step, wait)
  local gone = 0
  each(step, wait, function(members) gone = gone + call('ZREM', key, unpack(members)) end)
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
  local prefix = step.name .. ':' .. step.id .. (wait > 0 and '-' .. text(wait) or '')
  local stored = tonumber(call('ZSCORE', key, prefix .. ':1') or nil)
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
  for _, member in ipairs(call('ZRANGEBYSCORE', key, text(now - intervals[rates]), '+inf')) do
    if string.find(member, ':' .. step.id, 1, true) then gone = gone + call('ZREM', key, member) end
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

local reply = {text(now)}
for at = 2, #ARGV, 3 do
  local given = words(ARGV[at])
  local kind = given[1]
  local step = {
    name = ARGV[at + 1], id = ARGV[at + 2], weight = tonumber(given[2]),
    a = tonumber(given[3]), b = tonumber(given[4]),
  }
  local verdict, wait, slack = steps[kind](step)
  local free, reset = 0, 0
  if kind == 'claim' then free, reset = outlook() end
  for _, number in ipairs({verdict, wait, slack, free, reset}) do reply[#reply + 1] = text(number) end
end

if dirty then
  local longest = intervals[rates]
  if call('ZCARD', key) > 2 * limits[rates] + 128 then leak() end
  -- Kept a little longer than it counts. A clock of the caller's own may be slower than ours.
  local life = newest - now + longest + math.min(longest, 60000) + 1000
  call('PEXPIRE', key, text(stamp and math.max(life, 3600000) or life))
end
return table.concat(reply, ' ')

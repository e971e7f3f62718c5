-- Steps on the log of units in KEYS[1], all of them at one time, in the order given.
--
-- The log is a sorted set: one member per unit, scored with its time in ms. A member reads
-- "name:id:number". That of a reservation has a mark and the ms that it had to wait when it was made:
--   "name:id-wait:number"  its waiter asks again when it is due
--   "name:id+wait:number"  its waiter goes then without asking
--   "name:id=wait:number"  its waiter has gone before it was due
-- So a unit ahead of the clock is a reservation where it is not further ahead than its wait. Otherwise
-- the clock has stepped back since, or the clock of who wrote it is fast.
--
-- ARGV: a line of the stamp to judge by, '~' for the server's clock; the caller's clock, '~'
--   likewise; 1 for sliding windows, 0 for fixed ones; then limit/interval of each rate.
--   Then one for each step: its kind, weight, two words of its own, and "name:id":
--     reserve  patience (-1: only look), pad (-1: 5 % of the interval that is short, at most 50)
--     after    the moment before which the steps that follow it must not go: it begins a line
--     next     as reserve; not before the one before it, and left out where that was refused
--     part     so many of what is left of an item, if all that fits now; the number of the first
--     confirm  the mark in the reservation's members (as above, or "0" for none), patience
--     cancel   the mark, the number of the first of the units; it gives back so many from there
--     hold     for how many ms nothing is to be admitted, -1 ends that; an id in the place of "name:id"
--     forget   as cancel, for a reservation of which it is not known what became of it
-- What is held is two members without a number: "~hold" has the time before which nothing is admitted,
-- "~hold+" that and once more for how long. So both are ahead of the clock while it lasts.
-- "~hold-" stands for who has ended the last one: its score, below that of any unit, is its id.
-- A command that the driver sends again, because the answer was lost, is known by its id.
-- Reply: a line of numbers: the time, then five for each step:
--   reserve, next, part: the rate that refused or 0, -1 where it was left out; ms until it fits, -1 for
--     never; ms between the earliest moment and the one given, -1 for "ask again then"; units
--     left; ms until all is over
--   confirm: the rate or 0; ms until it fits; 1 where the mark has become "=wait", -1 as above
--   hold: 1 where a hold stood; in how many ms the one that stands now is over
--   others: how many units are gone; four zeros
local key, call, match, format = KEYS[1], redis.call, string.match, string.format
local at_once = 100 -- members, in one command

local function server_time()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- For how long the key is kept after its last unit has expired: a clock of the caller's own may be
-- slower than the server's.
local function extra_ms(interval) return math.min(interval, @extra@) + 1000 end

local function is_crowded(limit) return call('ZCARD', key) > 2 * limit + @slack@ end

-- The way of nearly every call: units that fit at once, by the server's clock, with nothing ahead
-- of it. This says what the rest would say, at a fraction of the price, of as many as come first.
local header, reply, at, clock = ARGV[1], {}, 2, nil
if string.sub(header, 1, 5) == '~ ~ 1' then
  clock = server_time()
  local score = format('%d', clock)
  if call('ZCOUNT', key, '(' .. score, '+inf') == 0 and not call('ZSCORE', key, '~hold+') then
    local free, limit, interval
    for most, length in string.gmatch(header, '(%d+)/(%d+)') do
      local left = most - call('ZCOUNT', key, format('%d', clock - length), '+inf')
      if not free or left < free then free = left end
      limit, interval = most, length
    end
    local scored, count, taken = {}, #ARGV, 0
    repeat
      local weight, label = match(ARGV[at], '^reserve (%d+) %d+ %S+ (.*)$')
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
        if filled >= 2 * at_once then
          call('ZADD', key, unpack(scored))
          scored, filled = {}, 0
        end
        scored[filled + 1], scored[filled + 2] = score, label .. i
      end
      free, taken = free - weight, taken + weight
      reply[at], at = format('0 0 0 %d %d', free, interval + 1), at + 1
    until at > count
    if scored[1] then call('ZADD', key, unpack(scored)) end
    if at > 2 then
      reply[1] = score
      local longer, left = extra_ms(interval), call('PTTL', key)
      if left < interval + longer / 2 then call('PEXPIRE', key, format('%d', interval + longer)) end
      -- Ids are random: one call in sixteen looks whether there is much to clean up. Where the key
      -- lives longer, others have rates of a longer interval, and still count what is old here.
      local looks = string.sub(ARGV[2], -1) == '0' or taken > at_once
      if looks and left <= interval + longer and is_crowded(limit) then
        local old = call('ZCOUNT', key, '-inf', format('(%d', clock - interval))
        if old > 0 then call('ZREMRANGEBYRANK', key, 0, math.min(old, @most_units@ + taken) - 1) end
      end
      if at > count then return table.concat(reply, ' ') end
    end
  end
end

local function text(number) return format('%d', number) end

-- The members of an item from a number on, some at a time.
local function each(prefix, first, weight, use)
  for last = first + weight - 1, first, -at_once do
    local members = {}
    for i = last, math.max(first, last - at_once + 1), -1 do members[#members + 1] = prefix .. i end
    use(members)
  end
end

local function insert(prefix, first, weight, score)
  each(prefix, first, weight, function(members)
    local scored = {}
    for i = 1, #members do scored[2 * i - 1], scored[2 * i] = score, members[i] end
    call('ZADD', key, unpack(scored))
  end)
end

local function units(place, number) -- so many, from so many places from the newest on
  return call('ZREVRANGE', key, text(place), text(place + number - 1), 'WITHSCORES')
end

local function unit(place) -- so many places from the newest: its time and its member
  local found = units(place, 1)
  return tonumber(found[2]), found[1]
end

local function ahead_of(moment, most) -- the units after a moment, no more than that
  return call('ZRANGEBYSCORE', key, '(' .. text(moment), '+inf', 'WITHSCORES', 'LIMIT', 0, most)
end

local function count_ahead_of(moment) return call('ZCOUNT', key, '(' .. text(moment), '+inf') end

local function reserved(member) return member and tonumber(match(member, '[-+=](%d+):%d+$')) end

local function goes_unasked(mark) return string.sub(mark, 1, 1) == '+' end

local stamp, given, sliding = match(header, '^(%S+) (%S+) (%d)')
stamp, clock, sliding = tonumber(stamp), tonumber(given) or clock or server_time(), sliding == '1'
local limits, intervals, rates = {}, {}, 0
for limit, interval in string.gmatch(header, '(%d+)/(%d+)') do
  rates = rates + 1
  limits[rates], intervals[rates] = tonumber(limit), tonumber(interval)
end
local now, longest = stamp or clock, intervals[rates]

-- A hold is put back at the end: meanwhile there is nothing in the log but units.
local held, length = now, 0
local found, timed, ended = nil, false, nil -- the hold as it was; whether a step went by the time
do
  local over = call('ZSCORE', key, '~hold+')
  local until_ms = over and call('ZSCORE', key, '~hold')
  if until_ms then
    held = tonumber(until_ms)
    length = over - held
    found = {text(held), text(tonumber(over)), call('PTTL', key)}
  end -- else it was over when a program on 4.5.1 has cleaned up
  if over then call('ZREM', key, '~hold', '~hold+') end
end

local function hold(ms, id)
  local stood = held > now and 1 or 0
  if ms < 0 then
    local mark = text(-@forever@ - tonumber(string.sub(id, 1, 12), 16))
    if tonumber(call('ZSCORE', key, '~hold-') or nil) == tonumber(mark) then
      return 1, held - now, 0 -- it comes for the second time
    end
    if stood == 1 then
      ended = held - now
      call('ZADD', key, mark, '~hold-')
    end
    held = now
  elseif now + ms > held then
    held, length = now + ms, ms
  end
  return stood, held - now, 0
end

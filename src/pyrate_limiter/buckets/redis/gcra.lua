-- Steps of GCRA on the hash in KEYS[1], all of them at one time, in the order given.
--
-- Fields tat1, tat2, ... hold the theoretical arrival time of each rate in microseconds, reservations
-- included; the hash has no others while nobody waits, as programs know it that look into it.
-- "open" is there while reservations are open, that is, while waiters have not gone yet: a time
-- before all that are open, the moments of the last reservations of an older and of a newer
-- generation, the units of both that are open, and the arrival times without these; then, behind a
-- semicolon, the moments and units that were given back in front of others, for whoever reserves
-- next. Who has woken is judged by those who have gone, so nobody passes the limit, however late the
-- others are. A generation that nobody has confirmed in time counts as used.
--
-- A second hash beside it, named like it with a suffix, has in "at" the latest time in ms that a
-- step was taken at, and in r0, r1, ... (rx: of many steps) the last replies, for a command that
-- the driver sends again because its answer was lost; and, while nothing is admitted, in "hold" the
-- ms until which, and how many that was to last. Programs on 4.5.1 leave it alone. Without a
-- suffix, or where the server refuses the second one, these are fields of the first.
--
-- ARGV: a line of the stamp to judge by, '~' for the server's clock, '=' for the latest time; what
--   the clock says that it is from, '~' for the server's; ms until the key expires; by how many ms a
--   stamp may be late; the suffix; then emission interval in microseconds/burst of each rate.
--   Then one for each step: its kind, weight, two numbers of its own, and an id of 16 digits:
--     take     now or not at all
--     reserve  patience (-1: only look), pad
--     confirm  the moment of the reservation, patience
--     cancel   the moment of the reservation, 0 where it has gone already
--     hold     for how many ms nothing is to be admitted, -1 ends that
-- Reply: a line of numbers: the time, then five for each step: the rate that refused or 0; ms until
--   it fits, -1 for never; ms between the earliest moment and the one given; units left; ms until
--   nothing is owed
local key, call, try, match, format = KEYS[1], redis.call, redis.pcall, string.match, string.format
local max, ceil = math.max, math.ceil

local function server_time()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local stamp, given, life, tolerance, suffix, spacing, most, more =
  match(ARGV[1], '^(%S+) (%S+) (%d+) (%d+) (%S*) (%d+)/(%d+)(.*)$')
local now, beside, id = tonumber(stamp) or server_time(), key .. suffix, string.sub(ARGV[2], -16)
local count = #ARGV
local slot = count > 4 and 'rx' or 'r' .. string.sub(id, -1)
local noted = try('HMGET', beside, 'at', slot, 'hold')
if noted.err then
  beside = key
  noted = call('HMGET', key, 'at', slot, 'hold')
end
if noted[2] and string.sub(noted[2], 1, 16) == id then return string.sub(noted[2], 18) end
local at, hold = tonumber(noted[1] or nil), noted[3]
life = tonumber(life)

local function noted_as(reply) return #reply < 10000 and id .. ' ' .. reply or '' end

local function keep(reply, owing) -- what was taken at the time, and ms until nothing is owed
  try('HSET', beside, 'at', format('%d', now), slot, noted_as(reply))
  local left = call('PTTL', key)
  if not at or left < life - life / 20 or left < owing then
    local longest = format('%d', max(life, owing, left))
    call('PEXPIRE', key, longest)
    try('PEXPIRE', beside, longest)
  end
  return reply
end

-- The way of nearly every call: with no reservation open, one step under one rate that fits at once
-- or is refused. This says what the rest would say, at a fraction of the price.
if count == 2 and more == '' and not hold then
  local kind, weight, patience = match(ARGV[2], '^(%a+) ([1-9]%d*) (%d+)')
  local stored = call('HMGET', key, 'tat1', 'open')
  local tat, start = tonumber(stored[1] or nil), now * 1000
  if (kind == 'reserve' or kind == 'take') and not stored[2] and not (tat and at and at > now) then
    spacing, most, weight = tonumber(spacing), tonumber(most), tonumber(weight)
    local debt = max((tat or 0) - start, 0)
    local wait = weight > most and -1 or max(ceil((debt + (weight - most) * spacing) / 1000), 0)
    if wait == 0 then
      debt = debt + weight * spacing
      call('HSET', key, 'tat1', format('%d', start + debt))
    end
    if wait <= 0 or wait > tonumber(patience) then
      local free, reset = max(most - ceil(debt / spacing), 0), ceil(debt / 1000)
      local reply = format('%d %d %d 0 %d %d', now, wait == 0 and 0 or 1, wait, free, reset)
      return wait == 0 and keep(reply, reset) or reply
    end
  end
end

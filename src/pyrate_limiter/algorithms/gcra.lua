-- GCRA on the hash in KEYS[1]: fields tat1, tat2, ... hold the theoretical arrival time of each
-- rate in microseconds, and "at" the latest time in ms that a step was taken at.
--
-- ARGV: now in ms ('' for the server's clock), weight, ms until the key expires, the number of
--   rates, then emission interval in microseconds and burst of each; then, for other steps than a
--   plain one: the kind, and two of its own:
--     claim    patience in ms (-1: only look), pad in ms
--     settle   0, 0; behind them the times that the claim left behind
--     release  0, 0; behind them those times, and those from before it
-- Reply: -1 and 0 when admitted, else the index of the rate that refused, from 0, and ms until the
--   weight fits, -1 for never. A claim: the same, with ms to wait in the place of 0; now; the slack
--   in ms; then the arrival times before and after.
local key, call = KEYS[1], redis.call
local stamp, weight, life = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local rates = tonumber(ARGV[4])
local extra = 5 + 2 * rates
local kind = ARGV[extra] or 'step'
local function text(number) return string.format('%.0f', number) end

local now = stamp
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local fields, emission, burst = {}, {}, {}
for i = 1, rates do
  fields[i] = 'tat' .. i
  emission[i], burst[i] = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
end
fields[rates + 1] = 'at'
local stored = call('HMGET', key, unpack(fields))
local tats, at = {}, tonumber(stored[rates + 1] or nil)
for i = 1, rates do tats[i] = tonumber(stored[i] or nil) or 0 end

local function save(after)
  local values, owed = {'at', text(now)}, 0
  for i = 1, rates do
    values[1 + 2 * i], values[2 + 2 * i] = fields[i], text(after[i])
    owed = math.max(owed, after[i] - now * 1000)
  end
  call('HSET', key, unpack(values))
  call('PEXPIRE', key, text(math.max(life, math.ceil(owed / 1000)))) -- claims may last longer
end

if kind == 'release' then
  now = at or now -- no matter when: whoever releases may not know the clock that was stamped by
elseif at and at > now then
  local behind = at - now
  local shortest = math.huge -- ms that a full bucket needs to drain under the tightest rate
  for i = 1, rates do shortest = math.min(shortest, emission[i] * burst[i] / 1000) end
  if stamp and behind <= shortest then
    now = at -- of two callers that stamp by themselves the older stamp came second
  else -- the clock has stepped back, and takes what is owed with it
    for i = 1, rates do tats[i] = math.max(0, tats[i] - behind * 1000) end
    save(tats) -- also where this step is refused: the next one must find time passing
  end
end

if kind == 'settle' then
  local late = {}
  for i = 1, rates do
    -- Where nobody has come behind the claim, this is what a step at this time would have left.
    late[i] = math.max(tats[i], now * 1000 + weight * emission[i])
  end
  save(late)
  return {-1, 0}
end

if kind == 'release' then
  local rest = {}
  for i = 1, rates do
    local after, before = tonumber(ARGV[extra + 2 + i]), tonumber(ARGV[extra + 2 + rates + i])
    rest[i] = tats[i] == after and before or math.max(0, tats[i] - weight * emission[i])
  end
  save(rest)
  return {-1, 0}
end

local patience, pad = tonumber(ARGV[extra + 1] or '0'), tonumber(ARGV[extra + 2] or '0')
local failing, early = nil, 0
for i = 1, rates do
  if weight > burst[i] then
    local reply = {i - 1, -1, now, 0}
    for k = 1, rates do reply[4 + k], reply[4 + rates + k] = text(tats[k]), text(tats[k]) end
    return reply
  end
  local wait = math.max(tats[i], now * 1000) + (weight - burst[i]) * emission[i] - now * 1000
  if wait > 0 then failing, early = failing or i, math.max(early, wait) end
end
local wait, slack, after = math.ceil(early / 1000), 0, {}
local admitted = not failing or wait <= patience
if admitted and patience >= 0 then
  if wait > 0 then slack = math.min(pad, patience - wait) end
  wait = wait + slack
  for i = 1, rates do
    after[i] = math.max(tats[i], (now + wait) * 1000) + weight * emission[i]
  end
  if weight > 0 then save(after) end
else
  after = tats
end
local reply = {admitted and -1 or failing - 1, wait, now, slack}
for i = 1, rates do reply[4 + i], reply[4 + rates + i] = text(tats[i]), text(after[i]) end
return reply

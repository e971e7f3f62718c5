-- GCRA on the hash in KEYS[1]: fields tat1, tat2, ... hold the theoretical arrival time of each
-- rate in microseconds, and "at" the latest time in ms that a step was taken at.
--
-- ARGV: now in ms, weight, ms until the key expires, the number of rates, then emission interval in
--   microseconds and burst of each.
-- Reply: -1 and 0 when admitted, else the index of the rate that refused, from 0, and ms until the
--   weight fits, -1 for never.
local key, call = KEYS[1], redis.call
local now, weight, life = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local rates = tonumber(ARGV[4])
local function text(number) return string.format('%.0f', number) end

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
  local values = {'at', text(now)}
  for i = 1, rates do
    values[1 + 2 * i], values[2 + 2 * i] = fields[i], text(after[i])
  end
  call('HSET', key, unpack(values))
  if call('PTTL', key) < life then call('PEXPIRE', key, text(life)) end
end

if at and at > now then
  local behind = at - now
  local shortest = math.huge -- ms that a full bucket needs to drain under the tightest rate
  for i = 1, rates do shortest = math.min(shortest, emission[i] * burst[i] / 1000) end
  if behind <= shortest then
    now = at -- of two callers the older stamp came second
  else -- the clock has stepped back, and takes what is owed with it
    for i = 1, rates do tats[i] = math.max(0, tats[i] - behind * 1000) end
    save(tats) -- also where this step is refused: the next one must find time passing
  end
end

local failing, early, after = nil, 0, {}
for i = 1, rates do
  if weight > burst[i] then return {i - 1, -1} end
  after[i] = math.max(tats[i], now * 1000) + weight * emission[i]
  local wait = after[i] - burst[i] * emission[i] - now * 1000
  if wait > 0 then failing, early = failing or i, math.max(early, wait) end
end
if failing then return {failing - 1, math.ceil(early / 1000)} end
save(after)
return {-1, 0}

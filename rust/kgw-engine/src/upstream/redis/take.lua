-- Takes tokens from every bucket, or from none.
-- KEYS: the buckets. ARGV, four to each: tokens that come back per unit, the unit in microseconds, most
-- tokens, tokens to take.
-- Answers 1 or 0, and three numbers to each bucket: whole tokens left, microseconds until there are enough
-- (-1: never), microseconds until it is full.
-- A bucket is "<tokens> <microsecond>", and is not stored once it would be full: such a one equals a new one.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local taken, left, waits = 1, {}, {}
for i, key in ipairs(KEYS) do
  local refill, unit = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local most, hits = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  left[i], waits[i] = most, 0
  local known = redis.call('GET', key)
  if known then
    local had, since = string.match(known, '^(%S+) (%S+)$')
    had, since = tonumber(had), tonumber(since)
    if had and since then
      -- The clock of another server, after a failover, may be behind.
      left[i] = math.min(most, had + math.max(0, now - since) * refill / unit)
    end
  end
  -- What is off by less than this is so by rounding.
  if left[i] + 1e-6 < hits then
    taken = 0
    waits[i] = hits > most and -1 or math.ceil((hits - left[i]) * unit / refill)
  end
end
local answer = {taken}
for i, key in ipairs(KEYS) do
  local refill, unit = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local most, hits = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  if taken == 1 and hits > 0 then
    left[i] = math.max(0, left[i] - hits)
    local full = math.ceil((most - left[i]) * unit / refill / 1000) + 1
    redis.call('SET', key, string.format('%.17g %.0f', left[i], now), 'PX', string.format('%.0f', full))
  end
  answer[#answer + 1] = math.floor(left[i] + 1e-6)
  answer[#answer + 1] = waits[i]
  answer[#answer + 1] = math.ceil((most - left[i]) * unit / refill)
end
return answer

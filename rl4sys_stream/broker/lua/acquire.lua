#!lua flags=allow-oom
-- Take the lease of a client under a new fencing token.
--
-- keys:   1 lease   string with expiry, the token of the live worker
--         2 epoch   counter
--         3 fence   string without expiry, the only token whose commits are accepted
--         4 head, 5 spec   hashes, for the epochs that they name
-- input:  1 nonce   random hex; after lost writes INCR may hand out a number twice, the nonce not
--         2 ttl_ms  how long the lease lives without renewal
--         3 force   '1' takes it over from a live holder
-- output: the token 'epoch:nonce', or false while somebody else holds the lease
-- why atomic: between "is it free?" and "it is mine" nobody may do the same.
-- why allow-oom: a full broker is emptied by workers, and they need the lease for it.
-- One that never expires is nobody's: every holder sets an expiry.
if ARGV[3] ~= '1' and redis.call('PTTL', KEYS[1]) >= 0 then
  return false
end
-- The counter alone may have been lost, or hold no number. Below the lineage's epoch, whatever a worker
-- publishes would be taken for an older lineage's.
local function epoch(text)
  return type(text) == 'string' and tonumber(string.match(text, '^%d+')) or 0
end
local taken = math.max(
  epoch(redis.call('GET', KEYS[3])),
  epoch(redis.pcall('HGET', KEYS[4], 'token')),
  epoch(redis.pcall('HGET', KEYS[5], 'lineage_epoch'))
)
local mine = redis.pcall('INCR', KEYS[2])
if type(mine) == 'table' and string.find(mine.err, 'WRONGTYPE', 1, true) then
  return mine
end
if type(mine) == 'table' or mine <= taken then
  mine = taken + 1
  redis.call('SET', KEYS[2], string.format('%.0f', mine))
end
local token = string.format('%.0f', mine) .. ':' .. ARGV[1]
redis.call('SET', KEYS[3], token)
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token

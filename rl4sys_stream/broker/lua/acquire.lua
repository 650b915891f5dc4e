#!lua flags=allow-oom
-- Take the lease of a client under a new fencing token.
--
-- keys:   1 lease   string with expiry, the token of the live worker
--         2 epoch   counter
--         3 fence   string without expiry, the only token whose commits are accepted
-- input:  1 nonce   random hex; after lost writes INCR may hand out a number twice, the nonce not
--         2 ttl_ms  how long the lease lives without renewal
--         3 force   '1' takes it over from a live holder
-- output: the token 'epoch:nonce', or false while somebody else holds the lease
-- why atomic: between "is it free?" and "it is mine" nobody may do the same.
-- why allow-oom: a full broker is emptied by workers, and they need the lease for it.
if ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
local token = redis.call('INCR', KEYS[2]) .. ':' .. ARGV[1]
redis.call('SET', KEYS[3], token)
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token

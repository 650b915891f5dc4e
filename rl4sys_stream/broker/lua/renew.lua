#!lua flags=allow-oom
-- Keep the lease of a client, if the fence is still mine.
--
-- keys:   1 lease   string with expiry
--         2 fence   string without expiry
-- input:  1 token   mine
--         2 ttl_ms  how long the lease lives without renewal
-- output: 1 renewed, 0 a newer worker owns the client
-- why atomic: a renewal that races with a take-over must not bring the old lease back to life.
-- why allow-oom: as in acquire.lua.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

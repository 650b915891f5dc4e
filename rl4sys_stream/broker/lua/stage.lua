#!lua flags=allow-oom
-- Write a staged hash at a broker that has no memory left for plain commands.
--
-- keys:   1 key     of the model or checkpoint
-- input:  1 ttl_s   expiry unless a commit persists it
--         then field-value pairs
-- output: 1
-- why a script: only a script may write above maxmemory. Values of megabytes block the server for
--         milliseconds in Lua, so this is the way for emergencies; the commit that follows frees
--         more than it takes.
redis.call('UNLINK', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1

#!lua flags=allow-oom
-- Begin a new lineage: forget the head, keep the stream, the watermarks and the counts.
--
-- keys:   1 fence   2 head   3 spec   4 lease
-- input:  1 token       taken by force just before, so that no worker can commit any more
--         2 lineage     the new one
--         3 epoch       models of an older epoch belong to an older lineage
--         4 channel, 5 notice
-- output: 1 done; error FENCED if somebody took the client over in between
-- why atomic: no worker may see the new lineage with the old head, or the other way round.
-- why allow-oom: as in acquire.lua.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED a newer worker owns this client')
end
redis.call('HSET', KEYS[3], 'lineage', ARGV[2], 'lineage_epoch', ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('DEL', KEYS[4])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1

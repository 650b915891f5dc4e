#!lua flags=allow-oom
-- Change what is asked of a client's agents and worker, write that down, and tell everybody.
--
-- keys:   1 control (hash)   2 control-log (stream)   3 head (hash)   4 fence
--         5…        checkpoints that must be there for good
-- input:  1 expect_revision  the change that I started from ('' = there was none)
--         2 record           JSON for the log
--         3 log_max          entries that the log keeps, approximately
--         4 channel, 5 notice
--         6 token            must equal the fence ('' = anybody may)
--         7 n, then n field-value pairs of control, revision included
--           n, then n pairs (version, token) that must be in the head's manifest
-- output: 1
-- errors: RACED, FENCED, UNKNOWN (a version), NOCHECKPOINT, BADTYPE; nothing was written
-- why atomic: between "the version is there" and "it is named here" a commit may prune it; commits
--         compare the revision for the same reason.
-- why allow-oom: agents must be stoppable at a broker that is full.
for i, expected in pairs({'hash', 'stream', 'hash'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected then
    return redis.error_reply('BADTYPE ' .. KEYS[i] .. ' is a ' .. found .. ', not a ' .. expected)
  end
end
if (redis.call('HGET', KEYS[1], 'revision') or '') ~= ARGV[1] then
  return redis.error_reply('RACED somebody else changed it')
end
if ARGV[6] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[6] then
  return redis.error_reply('FENCED a newer worker owns this client')
end
local n_fields = tonumber(ARGV[7])
local first = 8 + 2 * n_fields
local n_versions = tonumber(ARGV[first])
if n_versions > 0 then
  local known = {}
  for _, entry in ipairs(cjson.decode(redis.call('HGET', KEYS[3], 'manifest') or '[]')) do
    known[string.format('%.0f', entry[1]) .. ' ' .. entry[2]] = true
  end
  for i = first + 1, first + 2 * n_versions, 2 do
    if not known[ARGV[i] .. ' ' .. ARGV[i + 1]] then
      return redis.error_reply('UNKNOWN ' .. ARGV[i])
    end
  end
end
for i = 5, #KEYS do
  if redis.call('PTTL', KEYS[i]) ~= -1 then
    return redis.error_reply('NOCHECKPOINT ' .. KEYS[i] .. ' is gone')
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 8, first - 1))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'r', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1

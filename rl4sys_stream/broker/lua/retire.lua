#!lua flags=allow-oom
-- Add the books of an agent that has closed to the sum of the past ones, and shrink them.
--
-- keys:   1 fence   2 agents (hash)   3 seq (hash)   4 past (hash)
-- input:  1 token      mine; must equal the fence
--         2 agent_id
--         3 report     of the agent as it was added up
--         4 ledger     of the agent as it was added up, '' where there was none
--         5 rest       what stays of the ledger, '' = nothing
--         then pairs (name, amount) for past
-- output: 1 done, 0 the books have changed since they were read
-- errors: FENCED, BADPAST; nothing was written
-- why atomic: whoever reads the ledgers and the sums in one instant finds each number in one of
--         them; and a worker that was paused may not move what its successor has moved already.
-- why allow-oom: what it frees is more than what it writes.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED a newer worker owns this client')
end
local report = redis.call('HGET', KEYS[2], ARGV[2])
local ledger = redis.call('HGET', KEYS[3], ARGV[2]) or ''
if report ~= ARGV[3] or ledger ~= ARGV[4] then
  return 0
end
-- A script has no rollback: what could fail halfway is looked at first.
for i = 6, #ARGV, 2 do
  local sum = redis.call('HGET', KEYS[4], ARGV[i])
  if sum and not (#sum < 16 and string.find(sum, '^%d+$')) then
    return redis.error_reply('BADPAST ' .. ARGV[i] .. ' is no number')
  end
end
for i = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[5] == '' then
  redis.call('HDEL', KEYS[3], ARGV[2])
else
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
end
return 1

#!lua flags=allow-oom
-- Settle stream entries and, in the same instant, make a staged version the head.
--
-- keys:   1 fence        2 head        3 traj (stream)        4 seq        5 quarantine (stream)
--         6 metrics (stream)   7 control   8 control-log (stream)
--         9…             n_staged keys that were staged with an expiry (model, checkpoint)
--         the next       keys of pruned versions, which get an expiry
--         the last       n_useless keys that nobody reads any more, which go at once
-- input:  1 token            mine; must equal the fence
--         2 group            consumer group of the stream
--         3 commit_id        random; a repeated commit is recognised by it
--         4 expect_version   the head I started from ('0' and '' where there is none)
--         5 expect_token
--         6 expect_commit    the commit that wrote that head
--         7 expect_server    lines of INFO of the server I started at, blanks between them
--                            ('' = it does not tell)
--         8 n_staged
--         9 grace_s          expiry of pruned versions: an agent may be in the middle of reading
--         10 channel, 11 notice ('' = none)      12 metrics as JSON ('' = none)
--         13 quarantine_max  entries that the quarantine keeps
--         14 expect_control  the change of control that the pruned keys follow from ('' = there was
--                            none, '*' = whichever it is)
--         15 record as JSON for the control-log ('' = none)      16 entries that it keeps
--         17 n_useless
--         18 n, then n field-value pairs of head
--            n, then n field-value pairs of seq
--            n, then n pairs (entry id, reason) that go to the quarantine (they are settled, too)
--            n, then n ids to settle, in stream order
--            n, then n ids to delete from the stream
--            n, then n field-value pairs of control
-- output: {0 done | 1 was done before, number of entries still pending}
-- errors: FENCED, STALE, CONTROL, NOSTAGE, NOTPENDING, BADARGS, BADTYPE; nothing was written
-- why atomic: an entry is trained exactly when the version that it changed is the head. A script
--         has no rollback, so every check comes before the first write; and acknowledging comes
--         first among the writes.
-- why allow-oom: a commit is what empties a full broker; the first version settles nothing, and
--         without it nothing is ever settled.
local at = 18
local function take(width)
  local count = tonumber(ARGV[at])
  local first = at + 1
  at = first + count * width
  return first, at - 1
end

-- Never an error: it is asked after the writes, too, and then the commit has been carried out.
local function pending()
  local summary = redis.pcall('XPENDING', KEYS[3], ARGV[2])
  return summary.err and 0 or summary[1]
end

-- A write to a key of another type would fail when the entries are acknowledged already.
local types = {[2] = 'hash', [4] = 'hash', [5] = 'stream', [6] = 'stream', [7] = 'hash', [8] = 'stream'}
for i, expected in pairs(types) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected then
    return redis.error_reply('BADTYPE ' .. KEYS[i] .. ' is a ' .. found .. ', not a ' .. expected)
  end
end
-- So would one to a stream that somebody gave the last id that there is.
for _, i in ipairs({5, 6, 8}) do
  local info = redis.pcall('XINFO', 'STREAM', KEYS[i])
  for j = 1, #info, 2 do
    if info[j] == 'last-generated-id' and string.find(info[j + 1], '^18446744073709551615%-') then
      return redis.error_reply('BADTYPE ' .. KEYS[i] .. ' has the last id and takes no more entries')
    end
  end
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED a newer worker owns this client')
end
local head = redis.call('HMGET', KEYS[2], 'version', 'token', 'commit')
if head[3] == ARGV[3] then
  return {1, pending()}
end
if (head[1] or '0') ~= ARGV[4] or (head[2] or '') ~= ARGV[5] then
  return redis.error_reply('STALE the head is version ' .. (head[1] or '0') .. ' of ' .. (head[2] or 'nobody'))
end
-- A commit without a version leaves the version alone. If the broker has lost one, what the worker
-- takes for settled is not.
if head[1] and (head[3] or '') ~= ARGV[6] then
  return redis.error_reply('STALE the head was written by commit ' .. (head[3] or 'nobody'))
end
-- Another process, a replica in its place, or this one after it took a replica's writes over, may have
-- lost what the worker was told: the entries in its hand, those that it takes for destroyed, even the
-- commits of a newer worker.
if ARGV[7] ~= '' then
  local info = redis.pcall('INFO', 'server', 'replication')
  for line in string.gmatch(ARGV[7], '%S+') do
    if type(info) == 'string' and not string.find(info, '\n' .. line .. '\r', 1, true) then
      return redis.error_reply('STALE the server was restarted, changed its role, or was replaced')
    end
  end
end
-- What is pruned follows from what people have named; a version that was named since stays.
if ARGV[14] ~= '*' and (redis.call('HGET', KEYS[7], 'revision') or '') ~= ARGV[14] then
  return redis.error_reply('CONTROL what is asked of the worker was changed')
end
local n_staged = tonumber(ARGV[8])
for i = 9, 8 + n_staged do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return redis.error_reply('NOSTAGE ' .. KEYS[i] .. ' is gone')
  end
end
local head_first, head_last = take(2)
local seq_first, seq_last = take(2)
local bad_first, bad_last = take(2)
local ack_first, ack_last = take(1)
local del_first, del_last = take(1)
local control_first, control_last = take(2)
if control_last ~= #ARGV then
  return redis.error_reply('BADARGS ' .. #ARGV .. ' arguments, expected ' .. control_last)
end

-- Membership in the pending list decides whether an entry may be settled, not a high-water id: a
-- paused worker may hold entries below it.
local left = ack_last - ack_first + 1
if left > 0 then
  local want = {}
  for i = ack_first, ack_last do want[ARGV[i]] = true end
  local from = ARGV[ack_first]
  while left > 0 do
    local page = redis.pcall('XPENDING', KEYS[3], ARGV[2], from, ARGV[ack_last], 1000)
    if page.err or #page == 0 then break end
    for _, entry in ipairs(page) do
      if want[entry[1]] then
        want[entry[1]] = nil
        left = left - 1
      end
    end
    from = '(' .. page[#page][1]
  end
  if left > 0 then
    return redis.error_reply('NOTPENDING ' .. left .. ' entries are not pending')
  end
end

-- Read what goes to the quarantine before it is deleted. Lua passes on some thousands of values and
-- fails at more: an entry of more fields than any trajectory has keeps its first ones.
-- And the quarantine is bounded in bytes, too: who sent it comes first, and of huge fields the
-- beginning tells enough.
local most, widest, room = 1000, 16384, 65536
local leading = {agent_id = true, seq = true, floor = true}
local function quarantine_row(entry, id, reason)
  local row = {'entry_id', id, 'reason', string.sub(reason, 1, widest)}
  local left, kept, size, cut = room, 0, 0, false
  for _, part in ipairs(entry) do size = size + #part end
  for pass = 1, 2 do
    for j = 1, #entry, 2 do
      local name, value = entry[j], entry[j + 1]
      if (leading[name] or false) == (pass == 1) and kept < most and #name < math.min(left, widest) then
        local width = math.min(widest, left - #name)
        cut = cut or #value > width
        row[#row + 1] = name
        row[#row + 1] = string.sub(value, 1, width)
        left = left - #name - math.min(#value, width)
        kept = kept + 1
      end
    end
  end
  if kept < #entry / 2 then
    row[#row + 1] = 'fields_left_out'
    row[#row + 1] = #entry / 2 - kept
  end
  if cut or kept < #entry / 2 then
    row[#row + 1] = 'original_bytes'
    row[#row + 1] = size
  end
  return row
end
local refused = {}
for i = bad_first, bad_last, 2 do
  local found = redis.call('XRANGE', KEYS[3], ARGV[i], ARGV[i])
  refused[#refused + 1] = quarantine_row(found[1] and found[1][2] or {}, ARGV[i], ARGV[i + 1])
end

for i = ack_first, ack_last, 1000 do
  redis.call('XACK', KEYS[3], ARGV[2], unpack(ARGV, i, math.min(i + 999, ack_last)))
end
for i = del_first, del_last, 1000 do
  redis.call('XDEL', KEYS[3], unpack(ARGV, i, math.min(i + 999, del_last)))
end
for _, row in ipairs(refused) do
  redis.call('XADD', KEYS[5], 'MAXLEN', ARGV[13], '*', unpack(row))
end
local fields = {'commit', ARGV[3]}
for i = head_first, head_last do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', KEYS[2], unpack(fields))
for i = seq_first, seq_last, 1000 do
  redis.call('HSET', KEYS[4], unpack(ARGV, i, math.min(i + 999, seq_last)))
end
for i = 9, 8 + n_staged do redis.call('PERSIST', KEYS[i]) end
local useless = #KEYS - tonumber(ARGV[17])
for i = 9 + n_staged, useless do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
for i = useless + 1, #KEYS do redis.call('UNLINK', KEYS[i]) end
if control_last >= control_first then
  redis.call('HSET', KEYS[7], unpack(ARGV, control_first, control_last))
end
if ARGV[15] ~= '' then redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[16], '*', 'r', ARGV[15]) end
if ARGV[12] ~= '' then
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', '10000', '*', 'm', ARGV[12])
end
if ARGV[11] ~= '' then redis.call('PUBLISH', ARGV[10], ARGV[11]) end
return {0, pending()}

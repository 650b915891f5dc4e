#!lua flags=allow-oom
-- Create a stream and its consumer group where missing, to be read from the first entry on.
--
-- keys:   1 stream
-- input:  1 group
-- output: 1 created, 0 it was there
-- why a script: a worker that finds the broker full must be able to begin to empty it, and plain
--         XGROUP is refused then even where the group exists.
local reply = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if reply.err then
  if string.find(reply.err, 'BUSYGROUP', 1, true) then return 0 end
  return reply
end
return 1

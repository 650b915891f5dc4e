-- Give the lease of a client back, if it is mine. The fence stays: safety does not need a release.
--
-- keys:   1 lease   string with expiry
-- input:  1 token   mine
-- output: 1 released, 0 it was not mine
-- why atomic: between "is it mine?" and "delete it" it may expire and be taken by another.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0

"""The only door to Redis: keys, connections, streams, leases, commits, the registry.

In come typed values (specs, entry ids, counts), out go typed values and the package's own errors;
nothing outside this package imports redis. Called by `model_store`, `agent`, `worker`,
`dispatcher`, `cli` and `testing`.
"""

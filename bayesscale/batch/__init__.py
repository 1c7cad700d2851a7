"""Batches: many fits that survive any kill, on one process or many.

    plan → chunks of work → store (a chunk's result, whole or not at all) → gather (tables)

`plan` says what will be fitted and names every chunk by a hash of all its result depends on; `store` keeps results and believes
only those whose hashes match; `ledger` remembers attempts, as a hint; `lock` keeps a second process out; `scheduler` runs
chunks here, on local processes or on a Dask cluster; `loop` goes on until every curve has a result; `gather` merges. None
of these knows what a fit is or imports jax: `work` does.
"""

"""The lab: the product measured from outside, against the floors of its own machine.

It starts the real service over a database of its own, posts signed events from a process of its own, and afterwards compares what was
acknowledged with what is stored. A figure without its floor says more about the machine than about us, so each run measures both.

    choice   bodies    which tenant sends, and what     stage    server    where it happens, and the process under test
    wire     load      one connection; one phase        fleet    run       the tenants; phases and their costs
    load_process       the process that posts           floors   idle      flat table; HTTP that does nothing
    latency  machine   percentiles; CPU and memory      verify   backlog   what is stored; what waits
    ingest   pipeline  migrate: the benchmarks          figures            what they report
    quality            how often detectors are right    isolation          schemas against shared rows
    faults             loss and readiness while processes, PostgreSQL, the log, the disk and senders fail
"""

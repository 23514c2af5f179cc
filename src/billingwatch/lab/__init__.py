"""The lab: the product measured from outside, against the floors of its own machine.

It starts the real service over a database of its own, posts signed events from a process of its own, and afterwards compares what was
acknowledged with what is stored. A figure without its floor says more about the machine than about us, so each run measures both.

    choice   which tenant is next             wire      one HTTP connection          load      the load process
    stage    database and data directory      server    a server process             tenants   provisioning
    machine  CPU and memory of processes      floors    flat table and empty HTTP    verify    acknowledged = stored
    ingest, pipeline   the two benchmarks     figures   what they report
"""

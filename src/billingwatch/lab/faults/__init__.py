"""Faults: each row of `billingwatch bench faults` strikes a running service while signed events arrive.

A row fails when an acknowledged event is lost or doubled, or when /health/ready is wrong.

    scenario  registry                    what a row is; all rows
    processes  postgres  logs  disk       the faults, one module per family
    network  clock  strangers  analysts
    attacker  http_attacks  sql_attacks   the attacking process, and its attacks
    deployment  shifted  scene            the service's processes; its clock; what a fault can reach
    stream  probe                         signed events with redelivery; polls of ready and of the backlog
    found  compare  readiness  row        rows in the database; lost and doubled events; readiness; the result
    run  sites  round                     all rows; where they run; one round of one row
"""

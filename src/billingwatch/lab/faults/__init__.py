"""Faults: each row of `billingwatch bench faults` strikes a running service while signed events arrive.

scenario  registry   what a row is; all rows
processes  postgres  logs  disk  network  clock  strangers  analysts   the faults, one module per family
attacker  http_attacks  sql_attacks   the attacking process, and its attacks
deployment  shifted  scene            the service's processes; its clock; what a fault can reach
stream  probe                         signed events with redelivery; polls of /health/ready and the backlog
found  compare  readiness  row        rows in the database; lost and doubled events; readiness; the result
run  round                            all rows; one round of one row
"""

"""Detection: reads projected tables, writes anomalies, sends nothing.

A detector is a pure function of stored history, thresholds and a clock. Its SQL judges every row of a time range at the row's own
event time and returns whole incidents; the engine finds the ranges that a change can affect and revises the stored anomalies by what
comes back. So one by one, in batches, late, replayed or in any order the same history gives the same anomalies.
"""

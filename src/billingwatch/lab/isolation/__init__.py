"""Isolation: one schema per tenant, or rows of all tenants in shared tables? The product itself, in both, measured side by side.

A run is a grid of cells: a dimension, an arm, a number of tenants, how tenants are drawn, how much data there is, a repetition. Arms that
are compared take turns on the same server within minutes of each other, each in a database of its own, with the same seeds. Each cell's
figures are kept as they were measured, one file a cell, so a run that was broken off goes on where it stood, and every number of the
report can be looked up.

    arms     what is compared                    grid        which cells there are, and their order
    world    an arm's database, its tenants      results     one file for each cell
    fill     the history that tenants have       pooled      the service as most people would build it
    dimensions/   one module each: what is measured, how, and in which units
    run      the cells, one after the other      report      medians, who wins, where it changes; plots
"""

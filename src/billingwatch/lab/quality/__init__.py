"""Quality: how often the detectors are right, measured on simulated accounts whose incidents are known.

Each stream of events goes through the product itself (recorded as it is delivered, visited as a service would visit it, on a clock that
runs with the stream) and, beside it, through plain rules with fixed numbers, as a monitor without history has them.

    plan       which streams: kinds of business, seeds, incidents
    processes  streams over processes
    measure    one stream through both
    live       one stream through the product
    plain      one stream through the plain rules, over the same deliveries
    rules      the plain rules themselves
    truth      labels and alarms, and which belong together
    scores     precision, recall, delays, false alarms
    report     the whole run, and what it found
    words      the report for people, and for the README
"""

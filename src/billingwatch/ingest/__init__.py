"""An event in, once: receive, verify, decode, limit, record. Knows nothing of what events mean."""

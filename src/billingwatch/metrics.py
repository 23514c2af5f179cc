"""What Prometheus is told; names and labels are a contract with dashboards. Tenants are not labels: there may be 10,000."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

events = Counter("billingwatch_events", "Webhook deliveries by outcome", ["outcome"])
acknowledgement = Histogram(
    "billingwatch_acknowledgement_seconds", "From a webhook's arrival to its answer after the commit", buckets=_SECONDS
)
refused = Counter("billingwatch_refused_deliveries", "Refused deliveries of known tenants by reason", ["reason"])
connections = Gauge("billingwatch_connections", "Open HTTP connections, as of the last second", multiprocess_mode="sum")
connections_closed = Counter("billingwatch_connections_closed", "HTTP connections that the service closed by reason", ["reason"])
batch_events = Histogram("billingwatch_batch_events", "Events that one commit recorded", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
processed = Counter("billingwatch_processed_events", "Events that visits handled, by outcome", ["outcome"])
visit = Histogram("billingwatch_visit_seconds", "One visit: claim, project, detect, commit", buckets=_SECONDS)
visit_failures = Counter("billingwatch_visit_failures", "Visits that were rolled back and will be tried again")
detection_failures = Counter("billingwatch_detection_failures", "Detectors that failed in a visit and will judge again", ["detector"])
event_to_verdict = Histogram("billingwatch_event_to_verdict_seconds", "From an event's arrival to the end of its visit", buckets=_SECONDS)
anomalies = Counter("billingwatch_anomalies", "Anomalies by what became of them", ["detector", "change"])
backlog = Gauge("billingwatch_backlog_events", "Recorded events that wait for a visit", multiprocess_mode="mostrecent")
backlog_age = Gauge("billingwatch_backlog_age_seconds", "Age of the oldest of them", multiprocess_mode="mostrecent")
paused_events = Gauge("billingwatch_paused_events", "Recorded events of paused tenants", multiprocess_mode="mostrecent")
dead_letters = Gauge("billingwatch_dead_letters", "Events that could not be projected", multiprocess_mode="mostrecent")
tenants_not_at_head = Gauge(
    "billingwatch_tenants_not_at_head",
    "Tenants whose schema is not at this release's revision: behind (work as they are), outdated (events are only recorded), newer",
    ["state"],
    multiprocess_mode="mostrecent",
)
lane_tenants = Gauge(
    "billingwatch_lane_tenants", "Distinct tenant schemas that a lane's connection has served", ["lane"], multiprocess_mode="livesum"
)
lane_queue = Gauge("billingwatch_lane_queue", "Events or callers that wait for a lane", ["lane"], multiprocess_mode="livesum")
lane_connected = Gauge("billingwatch_lane_connected", "1 while a lane has its connection", ["lane"], multiprocess_mode="livesum")
lane_recycled = Gauge(
    "billingwatch_lane_recycled", "How often a lane's connection was replaced to give back memory", ["lane"], multiprocess_mode="livesum"
)
log_lines_dropped = Counter("billingwatch_log_lines_dropped", "Log lines that could not be written to stderr")

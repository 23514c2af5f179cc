"""Incidents: what goes wrong with billing, put into a stream on purpose and labelled for the detector that should find it."""

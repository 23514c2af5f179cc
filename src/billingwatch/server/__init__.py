"""The HTTP server's edge: what a sender may cost before a request of it is complete."""

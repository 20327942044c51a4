"""Several processes on one address: a parent, which takes no connections, and its workers."""

"""What the program tells of itself: log lines, the audit log, metrics."""

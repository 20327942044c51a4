"""YAML to an immutable, compiled policy."""

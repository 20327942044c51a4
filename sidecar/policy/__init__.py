"""The rules, one family in each file, as pure functions of values."""

"""Authentication: tokens are verified here, with keys that are kept fresh."""

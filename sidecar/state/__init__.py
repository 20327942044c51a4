"""What connections share: revocations, and what may be used once."""

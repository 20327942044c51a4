"""What holds for a live connection where a policy says nothing."""

from sidecar.policy.session import DEFAULT_SESSION, Expiry


def test_without_a_rule_a_connection_ends_with_its_token_and_can_be_revoked() -> None:
    session = DEFAULT_SESSION
    assert (session.expiry, session.revocable) == (Expiry.CLOSE, True)
    assert (session.warn, session.refresh, session.heartbeat) == (None, None, None)
    assert (session.idle_timeout, session.max_lifetime) == (None, None)

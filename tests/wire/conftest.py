"""The scanner's tests ask for `implementation`, and so run with both."""

from tests.support.implementations import implementation

__all__ = ["implementation"]

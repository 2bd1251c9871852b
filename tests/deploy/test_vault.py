"""Secrets in words that others read."""

import pytest

from deploy import vault


@pytest.mark.parametrize("order", [1, -1])
def test_a_secret_that_holds_another_one_goes_as_a_whole(order: int) -> None:
    values = ["owls", "owls-and-more-owls", "owls-and"][::order]
    sealed = {f"KEY_{n}": vault.seal(value) for n, value in enumerate(values)}
    said = vault.redacted("it is owls-and-more-owls, or owls", sealed)
    assert said == "it is •••, or •••"

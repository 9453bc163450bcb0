"""One finished small run, which several folders of tests look at."""

import pytest

from workflow.conftest import SMALL, Checkout, succeeded


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The whole workflow on the smallest cohort, run once."""
    config = {**SMALL, "evidence": {"cleanlab_folds": 2}}
    checkout = Checkout(tmp_path_factory.mktemp("finished"), config)
    succeeded(checkout.run())
    return checkout

"""The two recordings, each loaded once."""

import pytest

from tests.helpers import SHARED
from tests.parity.reference import Reference


@pytest.fixture(scope="session", params=["generated", "photographs"])
def reference(request, tmp_path_factory) -> Reference:
    if request.param == "photographs" and not (SHARED / "reference").is_dir():
        pytest.skip("the recording on photographs is not in the repository")
    return Reference(request.param, tmp_path_factory.mktemp("reference"))

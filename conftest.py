"""Examples in docstrings run in a folder of their own, for what they write."""

import pytest


@pytest.fixture(autouse=True)
def _examples_in_a_folder_of_their_own(request, tmp_path_factory, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp("example"))

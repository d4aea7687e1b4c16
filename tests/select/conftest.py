"""Scores and vectors that tests make are kept beside the tests' own files, never in the user's cache."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(folder))
    return folder

"""Fixtures that several tests share."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from makers.commands import ROOT, Run, run_apart, run_here
from makers.once import made_once

if TYPE_CHECKING:
    from makers.fault_proxy import FaultProxy
    from makers.object_stores import Bucket

# Makers that need PyAV, Ray or obstore are imported where they are used: the tests for a GPU run
# without these packages, and without pytest-timeout.

Ended = CompletedProcess[str]

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads: workers share the cores

# A busy machine, or a collection of garbage, is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Ray reads both once in a process, when it is first imported, whichever test that is.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def pytest_addoption(parser: pytest.Parser) -> None:
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds that a test may take, for pytest-timeout")


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("pytest_timeout") is None:
        config.addinivalue_line("markers", "timeout: for pytest-timeout")


@pytest.fixture(scope="session")
def six_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six recordings of two seconds, of three games. Only to be read."""
    from makers.recordings import cut, cuts

    def make(folder: Path) -> Path:
        for number, piece in enumerate(cuts(6)):
            cut(folder, f"play{number}", piece)
        return folder

    return made_once(tmp_path_factory, "recordings", make)


@pytest.fixture(scope="session")
def command_environment() -> dict[str, str]:
    """The environment of a `wham-data` of this checkout, with no settings of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHAM_DATA_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def cli(command_environment: dict[str, str]) -> Run:
    """Run the command to its end, in this process: nothing is imported twice."""

    def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
        return run_here(arguments, {**command_environment, **variables}, cwd)

    return run


@pytest.fixture(scope="session")
def cli_apart(command_environment: dict[str, str]) -> Run:
    """Run the command to its end, as a person would: in a process of its own."""

    def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
        return run_apart(arguments, {**command_environment, **variables}, cwd)

    return run


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server: one of our own, unless a variable names another."""
    from makers.object_stores import ENDPOINT, running_store

    if url := os.environ.get(ENDPOINT):
        yield url
        return
    with running_store(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def bucket(object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty place on the S3 server, and a cache of its own; the variables lead there."""
    from makers.object_stores import BUCKET, CREDENTIALS, Bucket, make_bucket

    name = os.environ.get(BUCKET)
    if name is None:
        name = f"test-{uuid.uuid4().hex[:12]}"
        make_bucket(object_store, name)
        for variable, value in CREDENTIALS.items():
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store)
    monkeypatch.setenv("WHAM_DATA_CACHE_DIR", str(tmp_path / "cache"))
    return Bucket(object_store, f"s3://{name}/{uuid.uuid4().hex[:8]}")


@pytest.fixture
def faulty(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """What stands between us and the bucket; lets everything pass until told otherwise."""
    from makers.fault_proxy import FaultProxy

    with FaultProxy(bucket.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("WHAM_DATA_STORE_TIMEOUT", "10")
        yield proxy


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder in which JavaScript finds hyparquet; the test is skipped without one."""
    folder = os.environ.get("WHAM_DATA_TEST_NODE_MODULES")
    if folder is None or shutil.which("node") is None:
        pytest.skip(
            "needs node, and hyparquet in WHAM_DATA_TEST_NODE_MODULES: `make soak` has both"
        )
    return Path(folder).resolve()


@pytest.fixture
def cuda() -> str:
    """The first GPU. Without one the test is skipped, or fails where there should be one."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("WHAM_DATA_FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("no CUDA device, and WHAM_DATA_FAIL_WITHOUT_CUDA=1")
        pytest.skip("no CUDA device")
    return "cuda"

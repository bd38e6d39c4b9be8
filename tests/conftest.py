"""Fixtures that several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from makers.fault_proxy import FaultProxy
from makers.object_stores import BUCKET, CREDENTIALS, ENDPOINT, Bucket, make_bucket, running_store
from makers.recordings import cut, cuts

ROOT = Path(__file__).parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def six_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six recordings of two seconds, of three games. Only to be read."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, piece in enumerate(cuts(6)):
        cut(folder, f"play{number}", piece)
    return folder


@pytest.fixture(scope="session")
def command_environment() -> dict[str, str]:
    """The environment of a `wham-data` of this checkout, with no settings of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHAM_DATA_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def cli(command_environment: dict[str, str]) -> Run:
    """Run the command, as a person would, to its end."""

    def run(
        *arguments: str | Path, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(arguments),
            cwd=cwd,
            env={**command_environment, **variables},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=100,
            check=False,
        )

    return run


def command(arguments: Sequence[str | Path]) -> list[str]:
    """The command line that runs `wham-data` with this interpreter."""
    start = "from wham_data.cli.main import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server: one of our own, unless a variable names another."""
    if url := os.environ.get(ENDPOINT):
        yield url
        return
    with running_store(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def bucket(object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty place on the S3 server, and a cache of its own; the variables lead there."""
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
    with FaultProxy(bucket.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("WHAM_DATA_STORE_TIMEOUT", "10")
        yield proxy


@pytest.fixture
def cuda() -> str:
    """The first GPU. Without one the test is skipped, or fails where there should be one."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("WHAM_DATA_FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("no CUDA device, and WHAM_DATA_FAIL_WITHOUT_CUDA=1")
        pytest.skip("no CUDA device")
    return "cuda"

"""Ingest to an object store ends as it should, however often it is killed and whatever fails."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from makers.commands import ROOT, Run
from makers.fault_proxy import Fault, FaultProxy
from makers.object_stores import Bucket
from makers.recordings import digest, ingest_here

from wham_data.corpus import Corpus

KILLS = int(os.environ.get("WHAM_DATA_TEST_KILLS", "3"))
SEED = int(os.environ.get("WHAM_DATA_TEST_SEED", "1"))
REQUESTS = 60
"""About as many as an undisturbed run makes; later ones are never reached."""
INGEST = (
    "import sys; from pathlib import Path; from makers.recordings import ingest_here; "
    "ingest_here(Path(sys.argv[1]), sys.argv[2])"
)


def ingest(folder: Path, location: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", INGEST, str(folder), location],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_ingest_killed_at_any_request_ends_identical_to_an_undisturbed_one(
    faulty: FaultProxy, bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for _ in range(KILLS):
        fault = Fault(chance.choice(["kill", "kill after"]), skip=chance.randrange(REQUESTS))
        print(f"seed {SEED}: {fault}")
        faulty.faults = [fault]
        faulty.victim = ingest(six_recordings, bucket.location)
        faulty.victim.communicate()
        faulty.faults = []
        if "corpus.json" in bucket.names():
            assert Corpus.open(bucket.location).verify().ok
    last = ingest(six_recordings, bucket.location)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    ingest_here(six_recordings, tmp_path / "undisturbed")
    assert digest(bucket.location) == digest(tmp_path / "undisturbed")
    assert Corpus.open(bucket.location).verify().ok


def test_the_command_ingests_looks_at_and_completes_a_corpus_on_a_store(
    bucket: Bucket, six_recordings: Path, cli: Run
) -> None:
    there = {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "WHAM_"))
    }
    options = ("--out", bucket.location, "--tokenizer", "none", "--workers", "0")
    first = cli("ingest", six_recordings, *options, **there)
    assert first.returncode == 0, first.stderr
    before = bucket.names("shards"), bucket.names("episodes")
    again = cli("ingest", six_recordings, *options, **there)
    assert again.returncode == 0, again.stderr
    assert (bucket.names("shards"), bucket.names("episodes")) == before
    told = cli("verify", bucket.location, **there)
    assert (told.returncode, told.stderr) == (0, "")
    away = cli(
        "info",
        bucket.location,
        **{**there, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "WHAM_DATA_STORE_TIMEOUT": "1"},
    )
    assert away.returncode == 1
    assert away.stderr.startswith(f"wham-data: {bucket.location}/corpus.json: the store failed")
    assert away.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    ],
)
def test_with_wrong_keys_nothing_is_seen_and_nothing_written(
    bucket: Bucket, six_recordings: Path, cli: Run, variable: str, code: str
) -> None:
    there = {
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
        variable: "wrong",
    }
    read = cli("info", bucket.location, **there)
    if "no corpus here" in read.stderr:
        pytest.skip("this server checks no keys")
    options = ("--out", bucket.location, "--tokenizer", "none", "--workers", "0")
    written = cli("ingest", six_recordings, *options, **there)
    for told in (read, written):
        assert told.returncode == 1
        assert told.stderr.startswith(f"wham-data: {bucket.location}")
        assert "access denied (non-2xx status code: 403 Forbidden" in told.stderr
        assert told.stderr.count("\n") == 1
    assert code in read.stderr
    assert bucket.names() == []

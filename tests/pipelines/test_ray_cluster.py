"""A run on a cluster of two nodes makes the corpus that a run in one process makes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from makers.recordings import digest, ingest_here

ROOT = Path(__file__).parents[2]

ON_TWO_NODES = """
import json, os, subprocess, sys, time
import ray
from ray.cluster_utils import Cluster
from wham_data.pipelines.ingest.job import IngestSettings, run_ingest
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import Stage

def where(encoder):
    def work(item, advance):
        time.sleep(0.5)
        return ray.get_runtime_context().get_node_id()
    return work

recordings, out, stranger = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
runner = RayRunner(2, cluster.address)
nodes = {outcome.result for outcome in runner.run(Stage("where", where), range(6), print)}
report = run_ingest([recordings], out, IngestSettings(tokenizer=None), runner)

refused = []
main = "from wham_data.cli.main import main; main()"
command = [sys.executable, "-c", main, "ingest", recordings, "--out", out + "-refused"]
for token in ({"RAY_AUTH_TOKEN_PATH": stranger}, {"RAY_AUTH_MODE": "disabled"}):
    begun = time.monotonic()
    run = subprocess.run(
        [*command, "--ray-address", cluster.address],
        env={**os.environ, **token}, capture_output=True, text=True,
    )
    refused.append([run.returncode, run.stderr, time.monotonic() - begun])
cluster.shutdown()
print(json.dumps([len(nodes), report.ingested, refused]))
"""


@pytest.mark.timeout(240)
def test_a_run_on_two_nodes_behind_a_token(six_recordings: Path, tmp_path: Path) -> None:
    ours, others = tmp_path / "token", tmp_path / "other"
    ours.write_text("0123456789abcdef" * 4)
    others.write_text("fedcba9876543210" * 4)
    # A run of this process may have left its own token, which would go before the one in a file.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}

    with subprocess.Popen(
        [sys.executable, "-c", ON_TWO_NODES, six_recordings, tmp_path / "cluster", others],
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(ours),
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            said, told = run.communicate(timeout=220)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)  # a cluster that did not come to its end

    assert run.returncode == 0, told
    nodes, ingested, refused = json.loads(said.splitlines()[-1])
    assert (nodes, ingested) == (2, 6)
    (wrong, of_wrong, first), (none, of_none, second) = refused
    assert (wrong, none) == (1, 1)
    assert f"the token in {others} (RAY_AUTH_TOKEN_PATH) is missing or refused. Set" in of_wrong
    assert "no token was sent, because RAY_AUTH_MODE is disabled. Set" in of_none
    assert len(of_wrong.splitlines()) == len(of_none.splitlines()) == 1
    assert max(first, second) < 30  # 15 on a quiet machine
    ingest_here(six_recordings, tmp_path / "here")
    assert digest(tmp_path / "cluster") == digest(tmp_path / "here")

"""What decodes the videos of an ingest: chosen for a run, written down, and of no effect on the steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import cut, cuts

from wham_data.pipelines.ingest.decoder_child import GPU_DRIVER_MB, memory_mb
from wham_data.pipelines.ingest.decoder_process import DecodeLimits, OpenRequest
from wham_data.pipelines.video import VideoLimits
from wham_data.pipelines.video.hardware import why_no_gpu
from wham_data.schemas.recording import Recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    cut(folder, "play", next(iter(cuts(1))))
    return folder


def test_a_gpu_that_is_not_there_is_refused_in_one_line(
    cli: Run, recording: Path, tmp_path: Path
) -> None:
    if why_no_gpu() is None:
        pytest.skip("there is a GPU")
    for more in ((), ("--dry-run",)):
        ran = cli("ingest", recording, "--out", tmp_path / "corpus", "--decoder", "nvdec", *more)
        assert ran.returncode == 5
        (line,) = ran.stderr.splitlines()
        assert line.startswith("wham-data: --decoder nvdec: libcuda.so.1 cannot be loaded. ")
        assert line.endswith("Or use --decoder cpu")
    assert not (tmp_path / "corpus").exists()


def test_the_decoder_is_in_the_record_of_the_run_and_not_in_what_identifies_a_shard(
    cli: Run, recording: Path, tmp_path: Path
) -> None:
    common = ("ingest", recording, "--out", tmp_path / "corpus", "--tokenizer", "none", "--json")
    first = cli(*common, "--workers", "0", "--decoder", "cpu")
    again = cli(*common, "--workers", "0", "--decoder", "auto")

    assert (first.returncode, again.returncode) == (0, 0)
    assert json.loads(again.stdout)["already_there"] == 1
    runs = [json.loads(run.read_text()) for run in (tmp_path / "corpus" / "runs").iterdir()]
    assert sorted(run["decoder"] for run in runs) == ["auto", "cpu"]
    assert len({run["settings"]["settings_hash"] for run in runs}) == 1


def test_the_driver_of_a_gpu_has_memory_besides_that_for_decoding() -> None:
    recording = Recording(Path("a.mp4"), (Path("a.mp4"),), "video-alone")
    decoding = DecodeLimits(memory_mb=600)
    request = OpenRequest(recording, VideoLimits(), 0, (), (), decoding, ())

    assert memory_mb(request, gpu=False) == 600
    assert memory_mb(request, gpu=True) == 600 + GPU_DRIVER_MB

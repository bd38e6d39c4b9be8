"""The demo: bundled gameplay becomes a verified corpus, pictures a person can judge, and dreams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.inference.tokenizer import Tokenizer, load_tokenizer
from wham_data.inference.training.evaluate import psnr_db
from wham_data.inference.world_model import load_world_model
from wham_data.pipelines.align import latest_at
from wham_data.pipelines.dream.files import dream_path
from wham_data.pipelines.dream.job import run_dreams
from wham_data.pipelines.dream.report import DreamReport
from wham_data.pipelines.dream.settings import DreamChoices
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.shown.inspect import decoded_frames
from wham_data.pipelines.media import picture
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.runner import Runner
from wham_data.pipelines.video import (
    decode_frames,
    decode_image,
    encode_image,
    index_video,
    write_video,
)
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import IntegrityError
from wham_data.schemas.recording import Frames
from wham_data.schemas.wham_tokens import ACTION_SPACE

RECORDINGS = Path(str(files("wham_data.pipelines"))) / "demo_recordings"
SETTINGS = IngestSettings(actions=ACTION_SPACE, frames="png")
MOMENTS_ON_PAGE = 2
DREAM = DreamChoices(steps=10, start=30)
"""From 3 s into each recording, one second on, with the actions of the log."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo left: the accounts, steps verified, and where to look.

    dreams  an overlay per recording: what was recorded, what was dreamt, and the pad
    """

    report: IngestReport
    checked: int
    picture: Path
    video: Path
    dreamt: DreamReport
    dreams: tuple[Path, ...]


def run_demo(
    out: Path,
    runner: Runner,
    watch: ProgressListener,
    dream_watch: ProgressListener,
    choices: DreamChoices = DREAM,
) -> DemoResult:
    """Ingest the bundled recordings into `out`/corpus, verify it, draw `demo.png` and `demo.mp4`, and
    dream on from each recording into `out`/dreams, as `choices`.

    Raises:
        IntegrityError: the corpus does not verify.
    """
    report = run_ingest([RECORDINGS], out / "corpus", SETTINGS, runner, watch=watch)
    corpus = Corpus.open(out / "corpus")
    problems = corpus.verify().problems
    if problems:
        raise IntegrityError(f"the demo corpus does not verify: {problems[0]}")
    tokenizer = load_tokenizer("wham-tiny", "cpu")

    page_rows: list[Frames] = []

    def film() -> Iterator[Frames]:
        for episode, source, count in corpus.episodes.select("episode", "source", "n_steps").rows():
            chosen = {round(count * (k + 0.5) / MOMENTS_ON_PAGE) for k in range(MOMENTS_ON_PAGE)}
            for step, moment in enumerate(moments(corpus, episode, Path(source), tokenizer)):
                strip = picture.row(moment, corpus.info.action_space)
                if step in chosen:
                    page_rows.append(strip)
                yield strip

    write_video(out / "demo.mp4", film(), TEN_HZ)
    sheet = picture.page(page_rows, f"wham-data: recordings to tokens, {tokenizer.info.name}")
    (out / "demo.png").write_bytes(encode_image(sheet, "png"))
    dreams = out / "dreams"
    dreamt = dream_on(corpus, dreams, dream_watch, choices)
    return DemoResult(
        report,
        checked=int(corpus.episodes["n_steps"].sum()),
        picture=out / "demo.png",
        video=out / "demo.mp4",
        dreamt=dreamt,
        dreams=tuple(dream_path(dreams, name, "overlay") for name in dreamt.dreams),
    )


def dream_on(
    corpus: Corpus, out: Path, watch: ProgressListener, choices: DreamChoices
) -> DreamReport:
    """Dream on from every recording with the bundled world model."""
    model = load_world_model("wham-tiny", "cpu")
    source = open_dream_source([corpus.location])
    settings = choices.settle(source, model)
    return run_dreams(source, out, model, settings, save=("npz", "csv", "overlay"), watch=watch)


def moments(
    corpus: Corpus, episode: str, source: Path, tokenizer: Tokenizer
) -> Iterator[picture.Moment]:
    """Every step of an episode, with the source frame that was on screen at its time."""
    steps = corpus.read_episode(episode)
    index = index_video(source)
    picks = latest_at(index.times_ns, steps.time_ns)
    shown = decode_frames(index, picks, index.picture.display_size, batch=1)
    from_tokens = decoded_frames(tokenizer, steps)
    for step, (frame, image, decoded) in enumerate(
        zip(shown, steps.frames or (), from_tokens, strict=True)
    ):
        grid = decode_image(image)
        yield picture.Moment(
            title=f"{source.stem}  {steps.time_ns[step] / 1e9:.1f} s",
            source=frame[0],
            grid=grid,
            decoded=decoded,
            actions=steps.actions[: step + 1],
            psnr=float(psnr_db(grid[None], decoded[None])[0]),
        )

"""The clips of a corpus get texts from a model: asked once, kept as they come, failures listed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from makers.captioned import PROMPT, add_pictured, ask, pictured_corpus, texts
from makers.commands import Run, command
from makers.corpora import add_shard, info, rows_for, small_corpus, steps
from makers.object_stores import Bucket
from makers.vision_server import (
    Asked,
    Handler,
    Held,
    answers,
    completion,
    first,
    numbered,
    replies,
    vision_server,
)
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.captions.answers import Usage
from wham_data.corpus.shards import RowRange, ShardFile
from wham_data.feed import WindowDataset
from wham_data.inference.tokenizer import load_tokenizer, tokenizer_info
from wham_data.pipelines.caption.clips import ClipForm, clips_of, sheet
from wham_data.pipelines.caption.prompt import DEFAULT_PROMPTS, prompt_from
from wham_data.pipelines.caption.report import Prices
from wham_data.pipelines.ingest.tokenize import tokenize
from wham_data.pipelines.video import VideoLimits, decode_image, index_video
from wham_data.schemas.errors import IntegrityError, UsageError

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def everything_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_every_step_of_a_clip_has_its_text_in_a_new_version(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    before = corpus.version
    with vision_server() as server:
        report = ask(corpus, server)

    # Shards are in the order of their names; within ann-0 and ann-1 clips are of 8, 8 and 4 steps.
    found = texts(tmp_path / "c")
    assert sorted(found) == ["ann-0", "ann-1", "bob-0"]
    for of_episode in found.values():
        first_clip = int(str(of_episode[0]).removeprefix("Text ").removesuffix("."))
        numbers = [first_clip] * 8 + [first_clip + 1] * 8 + [first_clip + 2] * 4
        assert of_episode == [f"Text {number}." for number in numbers]
    assert (report.clips, report.short, report.answered, report.steps) == (9, 3, 9, 60)
    assert (report.usage, report.models, report.exit_code) == (
        Usage(9000, 180),
        {"tiny-vl-1": 9},
        0,
    )
    assert report.version == before + 1
    assert "text" not in Corpus.open(tmp_path / "c", before).scan().collect_schema()
    assert Corpus.open(tmp_path / "c").verify().ok


def test_the_manifest_names_the_model_the_prompt_the_date_and_the_steps(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        report = ask(corpus, server)

    for (captions,) in Corpus.open(tmp_path / "c").episodes.select("captions").iter_rows():
        (each,) = captions
        assert (each["model"], each["prompt"]) == ("tiny-vl", PROMPT)
        assert each["settings"] == report.settings
        assert each["steps"] == [{"start": 0, "end": 20}]
        assert timedelta() <= datetime.now(UTC) - each["made"] < timedelta(minutes=1)


def test_a_sheet_holds_frames_of_the_clip_row_by_row(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        report = ask(corpus, server, every=20, form=ClipForm(frames=4), limit=1)
        (asked,) = server.asked
        head, data = asked.media

    assert (report.pictures, report.left) == ("stored", 2)
    assert head == "data:image/jpeg;base64"
    seen = decode_image(data)
    assert seen.shape == (2 * 20 + 4, 2 * 30 + 4, 3)
    corners = [seen[10, 15], seen[10, 50], seen[34, 15], seen[34, 50]]
    assert [int(corner[0]) for corner in corners] == pytest.approx([0, 48, 104, 152], abs=3)


def test_a_clip_can_be_sent_as_a_video_of_all_its_frames(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        ask(corpus, server, form=ClipForm("mp4"), limit=1)
        head, data = server.asked[0].media

    assert head == "data:video/mp4;base64"
    (tmp_path / "clip.mp4").write_bytes(data)
    index = index_video(tmp_path / "clip.mp4", VideoLimits())
    assert np.diff(index.times_ns).tolist() == [100_000_000] * 7


def test_the_same_command_again_asks_nothing_and_changes_nothing(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        ask(corpus, server)
        version, before = corpus.version, everything_under(tmp_path / "c")
        for replace in (False, True):
            report = ask(corpus, server, replace=replace)
            assert (report.answered, report.steps, report.version) == (0, 0, version)
        assert len(server.asked) == 9

    assert everything_under(tmp_path / "c") == before


@pytest.mark.parametrize("other", [{"model": "other"}, {"prompt": "Where?"}, {"temperature": 1.0}])
def test_another_model_or_prompt_is_another_set(tmp_path: Path, other: dict[str, object]) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        one = ask(corpus, server)
        kept = ask(corpus, server, **other)
        assert (kept.has_text, kept.answered, len(server.asked)) == (9, 0, 9)
        two = ask(corpus, server, replace=True, **other)
        assert (two.answered, two.steps, len(server.asked)) == (9, 60, 18)
        back = ask(corpus, server, replace=True)
        assert (back.answered_before, back.steps, len(server.asked)) == (9, 60, 18)

    assert one.settings == back.settings != two.settings
    rows = Corpus.open(tmp_path / "c").episodes["captions"].to_list()
    assert [[each["settings"] for each in row] for row in rows] == [[one.settings]] * 3


def test_the_server_may_move_and_most_tokens_may_rise_without_asking_again(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server(first(then=answers("A", "length"))) as server:
        assert ask(corpus, server, limit=2).failed == 2
    with vision_server() as server:
        ask(corpus, server, limit=4)
    with vision_server() as server:
        report = ask(corpus, server, max_tokens=999)

    assert (report.has_text, report.answered) == (4, 5)


def test_texts_of_the_sources_are_kept_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(frames="png", text=True))
    stored: list[str | None] = ["Jump!"] * 8 + [None] * 12
    corpus.commit(add_pictured(corpus, "ann-0", text=stored))
    with vision_server() as server:
        report = ask(corpus, server)
        assert (report.has_text, report.answered, report.steps) == (1, 2, 12)
        assert texts(corpus)["ann-0"] == ["Jump!"] * 8 + ["Text 0."] * 8 + ["Text 1."] * 4
        (captions,) = corpus.episodes["captions"].to_list()
        assert captions[0]["steps"] == [{"start": 8, "end": 20}]

        assert ask(corpus, server, replace=True).steps == 8
    assert texts(corpus)["ann-0"] == ["Text 2."] * 8 + ["Text 0."] * 8 + ["Text 1."] * 4


def test_clips_outside_keep_are_not_asked_about(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(frames="png"))
    corpus.commit(add_pictured(corpus, "ann-0", keep=((15, 17),)))
    with vision_server() as server:
        report = ask(corpus, server)

    assert (report.clips, report.short) == (2, 1)
    assert texts(corpus)["ann-0"] == [None] * 8 + ["Text 0."] * 8 + ["Text 1."] * 4


def test_failures_are_listed_and_their_steps_stay_without_a_text(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")

    def behave(handler: Handler, asked: Asked) -> None:
        (answers("No", "content_filter") if asked.number == 1 else numbered)(handler, asked)

    with vision_server(behave) as server:
        report = ask(corpus, server)
        (failed,) = report.failures
        assert (failed.start, failed.stop, failed.code) == (8, 16, "content_filter")
        assert texts(corpus)[failed.episode][8:16] == [None] * 8
        assert (report.failed, report.steps, report.exit_code) == (1, 52, 3)
        (run,) = (json.loads(p.read_text()) for p in (tmp_path / "c/runs").iterdir())
        assert run["exit_code"] == 3
        assert run["report"]["failures"][0]["code"] == "content_filter"
        assert run["settings"]["prompt"] == PROMPT

        again = ask(corpus, server)
        assert (again.answered, again.steps, again.exit_code) == (1, 8, 0)


def test_a_text_is_stored_plain(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    hostile = "\ufeff A \x1b[31mred\x07 {0.__class__} %s\r\n\tcube\u202e \ud800 turns. \U0001f469\u200d\U0001f680 "
    with vision_server(answers(hostile)) as server:
        ask(corpus, server)

    wanted = "\ufeff A [31mred {0.__class__} %s cube turns. \U0001f469\u200d\U0001f680"
    assert {text for each in texts(corpus).values() for text in each} == {wanted.strip()}
    assert corpus.verify().ok


def test_a_server_that_fails_again_and_again_ends_the_run(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server(first(numbered, then=replies(400, b"no"))) as server:
        report = ask(corpus, server, every=1)
        assert len(server.asked) == 11

    assert (report.answered, report.failed, report.left) == (1, 10, 49)
    assert "10 clips in a row" in report.stopped
    assert report.exit_code == 3
    assert sum(text is not None for each in texts(corpus).values() for text in each) == 1


def test_a_server_with_no_answer_at_all_leaves_the_corpus_as_it_is(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    version = corpus.version
    with vision_server(replies(500)) as server:
        report = ask(corpus, server, retries=0)

    assert (report.failed, report.steps, report.exit_code) == (9, 0, 6)
    assert corpus.version == version
    assert not (tmp_path / "c/captions").exists()


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_refused_key_model_or_address_is_wrong_usage(tmp_path: Path, status: int) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server(replies(status, Location="http://127.0.0.1:9/")) as server:
        with pytest.raises(UsageError):
            ask(corpus, server)
        assert len(server.asked) == 1


def test_a_key_that_ends_midway_loses_nothing(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server(first(numbered, numbered, then=replies(401))) as server:
        report = ask(corpus, server)

    assert (report.answered, report.failed, report.left, report.exit_code) == (2, 1, 6, 3)
    assert "OPENAI_API_KEY" in report.stopped
    assert report.steps == 16


def test_many_requests_are_under_way_at_the_same_time(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    held = Held()

    def behave(handler: Handler, asked: Asked) -> None:
        if asked.number == 5:  # the sixth request came while five waited
            held.go.set()
        held(handler, asked)

    with vision_server(behave) as server:
        report = ask(corpus, server, concurrent=6, timeout_s=30)

    assert report.answered == 9


def test_tokens_that_no_server_counted_have_no_cost(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    prices = Prices.parse("2,10")
    with vision_server() as server:
        assert ask(corpus, server, limit=1, prices=prices).cost == pytest.approx(0.0022)
    with vision_server(answers("A.", usage=None)) as server:
        report = ask(corpus, server, limit=1, prices=prices)

    assert (report.usage, report.cost) == (Usage(unknown=1), None)


def test_pictures_are_decoded_from_tokens_where_none_are_stored(tmp_path: Path) -> None:
    corpus = Corpus.create(
        tmp_path / "c", info(tokenizer=tokenizer_info("wham-tiny"), size=(300, 180))
    )
    corpus.commit(add_shard(corpus, "ann-0", n_steps=10))
    with vision_server() as server:
        report = ask(corpus, server, every=81)
        seen = decode_image(server.asked[0].media[1])
    decoded = load_tokenizer("wham-tiny", "cpu").decode(tokens_of(corpus)[:1])[0]

    assert (report.pictures, report.answered, report.short) == ("decoded", 1, 1)
    assert seen.shape == (3 * 180 + 8, 3 * 300 + 8, 3)
    assert np.abs(seen[:180, :300].astype(int) - decoded).mean() < 3


def tokens_of(corpus: Corpus) -> NDArray[np.uint16]:
    tokens = corpus.read_episode("ann-0").tokens
    assert tokens is not None
    return tokens


def test_tokens_made_later_have_the_same_texts(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(frames="png", tokenizer=None, size=(300, 180)))
    corpus.commit(add_pictured(corpus, "ann-0", n_steps=3))
    with vision_server() as server:
        ask(corpus, server, every=2)
    tokenize(corpus, tokenizer="wham-tiny", out=tmp_path / "tokens", workers=0, device="cpu")

    copy = Corpus.open(tmp_path / "tokens")
    assert texts(copy) == {"ann-0": ["Text 0.", "Text 0.", "Text 1."]}
    assert copy.episodes["captions"].to_list() == corpus.episodes["captions"].to_list()
    assert copy.verify().problems == ()


def test_training_windows_do_not_change(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    fields = ("tokens", "actions", "step")

    def windows() -> list[bytes]:
        view = WindowDataset(str(tmp_path / "c"), length=5, fields=fields, shuffle=False)
        return sorted(b"".join(window[name].tobytes() for name in fields) for window in view)

    before = windows()
    with vision_server() as server:
        ask(corpus, server)

    assert windows() == before


def test_a_corpus_on_a_store_is_captioned_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    pictured_corpus(bucket.location)
    pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        for place in (bucket.location, str(tmp_path / "c")):
            report = ask(Corpus.open(place), server, limit=5)
            assert (report.answered, report.left) == (5, 4)
            assert ask(Corpus.open(place), server).answered == 4

    stored = Corpus.open(bucket.location)
    assert stored.verify().problems == ()
    assert [len(each) for each in texts(stored).values()] == [20] * 3
    assert len(bucket.names("captions")) == 1
    assert not any(b"sk-secret" in stored.storage.read(name) for name in bucket.names())


def test_a_corpus_without_pictures_and_tokens_is_refused_with_what_helps(tmp_path: Path) -> None:
    small_corpus(tmp_path / "none", tokenizer=None)
    small_corpus(tmp_path / "foreign")
    pictured_corpus(tmp_path / "c")
    with vision_server() as server:
        with pytest.raises(UsageError, match="--frames jpeg"):
            ask(tmp_path / "none", server)
        with pytest.raises(UsageError, match="--tokenizer"):
            ask(tmp_path / "foreign", server)
        assert server.asked == []


def test_a_video_of_a_rate_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(frames="png", rate="native"))
    corpus.commit(add_pictured(corpus, "ann-0", source_fps=0.0))
    with vision_server() as server:
        with pytest.raises(UsageError, match="--as sheet"):
            ask(corpus, server, form=ClipForm("mp4"))
        assert ask(corpus, server).answered == 3
    with pytest.raises(UsageError, match="at most 2000 steps"):
        ask(corpus, "http://localhost:9/v1", every=2001, form=ClipForm("mp4"))


def test_a_picture_that_does_not_decode_ends_the_run(tmp_path: Path) -> None:
    small_corpus(tmp_path / "c", frames="jpeg")
    with vision_server() as server, pytest.raises(IntegrityError, match=r"steps 0 to 7 of"):
        ask(tmp_path / "c", server)


def test_an_episode_is_cut_from_its_first_step_on() -> None:
    episode = steps("ann-0", 20)
    shard = ShardFile(f"{'0' * 24}.parquet", "", 0, 20, (RowRange("ann-0", 0, 20),))
    (row,) = rows_for(shard, [episode], info())

    cuts = {every: [(clip.start, clip.stop) for clip in clips_of(row, every)] for every in (9, 81)}
    assert cuts == {9: [(0, 9), (9, 18), (18, 20)], 81: [(0, 20)]}


def test_a_sheet_of_large_frames_is_made_smaller() -> None:
    frames = [np.full((1080, 1920, 3), 40 * n, np.uint8) for n in range(4)]

    small = sheet(frames)
    assert small.shape == (2 * 540 + 4, 2 * 960 + 4, 3)
    assert (small[-1, -1] == 120).all()


def test_the_prompt_is_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("\ufeffWhere is it? {0}\n")
    (tmp_path / "latin.txt").write_bytes(b"O\xf9 ?")

    assert prompt_from(None, "mp4") == DEFAULT_PROMPTS["mp4"] != DEFAULT_PROMPTS["sheet"]
    assert prompt_from("Where is it?", "sheet") == "Where is it?"
    assert prompt_from(str(tmp_path / "prompt.txt"), "sheet") == "Where is it? {0}"
    for wrong in (str(tmp_path / "latin.txt"), "missing.txt", " ", "x" * 20_001):
        with pytest.raises(UsageError, match="--prompt"):
            prompt_from(wrong, "sheet")


def caption_command(corpus: Path, url: str, *more: str) -> list[str | Path]:
    usual = ["--model", "tiny-vl", "--every", "8", "--prompt", PROMPT, "--concurrent", "1"]
    return ["caption", corpus, "--endpoint", url, *usual, *more]


def test_the_command_says_what_became_of_every_clip(tmp_path: Path, cli: Run) -> None:
    corpus = tmp_path / "c"
    pictured_corpus(corpus)
    with vision_server(first(answers("A", "length"))) as server:
        plan = cli(*caption_command(corpus, server.url, "--dry-run"))
        assert (plan.returncode, server.asked) == (0, [])
        run = cli(*caption_command(corpus, server.url), OPENAI_API_KEY=KEY)
        again = cli(*caption_command(corpus, server.url, "--json"), OPENAI_API_KEY=KEY)

    assert "9 to ask about" in plan.stdout
    assert "not known before the first answers" in plan.stdout
    assert run.returncode == 3
    assert "found 9 clips = 0 with texts + 0 answered before + 8 answered + 1 failed" in run.stdout
    assert "[cut_off]: the answer was cut at its most tokens; raise --max-tokens" in run.stdout
    assert again.returncode == 0
    report = json.loads(again.stdout)
    assert (report["has_text"], report["answered"], report["failures"]) == (8, 1, [])


def test_failures_of_one_kind_are_one_line(tmp_path: Path, cli: Run) -> None:
    corpus = tmp_path / "c"
    pictured_corpus(corpus)
    with vision_server(first(numbered, then=answers("A", "length"))) as server:
        run = cli(*caption_command(corpus, server.url))

    (line,) = (line for line in run.stdout.splitlines() if "failed:" in line)
    assert "steps 8 to 15 and 7 more [cut_off]" in line


def test_the_key_is_in_no_file_and_no_output(tmp_path: Path, cli: Run) -> None:
    corpus = tmp_path / "c"
    pictured_corpus(corpus)

    def behave(handler: Handler, asked: Asked) -> None:
        said = asked.headers["authorization"]
        bodies = (completion(f"Key: {said}"), completion(f"Cut: {said}", "length"))
        if asked.number == 2:
            handler.send(400, said.encode())
        elif asked.number < 2:
            handler.send(200, bodies[asked.number])
        else:
            numbered(handler, asked)

    with vision_server(behave) as server:
        run = cli(*caption_command(corpus, server.url, "-v"), OPENAI_API_KEY=KEY)
        as_json = cli(*caption_command(corpus, server.url, "--json"), OPENAI_API_KEY=KEY)
        assert all(each.headers["authorization"] == f"Bearer {KEY}" for each in server.asked)

    assert (run.returncode, as_json.returncode) == (3, 0)
    printed = run.stdout + run.stderr + as_json.stdout + as_json.stderr
    assert "[key]" in printed
    assert KEY not in printed
    assert KEY.encode() not in everything_under(tmp_path)


def test_a_killed_run_asks_only_for_what_is_missing(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    corpus = tmp_path / "c"
    version = pictured_corpus(corpus).version
    held = Held()
    with vision_server(first(*[numbered] * 5, then=held)) as server:
        killed = subprocess.Popen(
            command(caption_command(corpus, server.url)),
            env={**command_environment, "OPENAI_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wait_until(lambda: len(server.asked) == 6)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert Corpus.open(corpus).version == version
        kept = [path.read_text() for path in (corpus / "captions").glob("*.jsonl")]
        assert len(kept) == 5
        held.go.set()

    with vision_server() as server:
        report = ask(corpus, server)
        assert len(server.asked) == 4
    assert (report.answered_before, report.answered, report.steps) == (5, 4, 60)
    assert len(list((corpus / "captions").iterdir())) == 1


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, command_environment: dict[str, str]
) -> None:
    corpus = tmp_path / "c"
    pictured_corpus(corpus)
    held = Held()
    with vision_server(first(numbered, then=held)) as server:
        process = subprocess.Popen(
            command(caption_command(corpus, server.url)),
            env=command_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: len(server.asked) == 2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        held.go.set()

    assert process.returncode == 130
    assert time.monotonic() - started < 20
    assert "the answers so far are kept" in said
    assert "wham-data caption" in said


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_on_ray_one_service_asks_for_all_workers(tmp_path: Path) -> None:
    corpus = pictured_corpus(tmp_path / "c")
    with vision_server(first(answers("A", "length"))) as server:
        report = ask(corpus, server, workers=2, concurrent=4)
        assert {each.headers["authorization"] for each in server.asked} == {f"Bearer {KEY}"}

    (failed,) = report.failures
    assert (report.answered, report.steps) == (8, 60 - (failed.stop - failed.start))
    assert corpus.verify().ok

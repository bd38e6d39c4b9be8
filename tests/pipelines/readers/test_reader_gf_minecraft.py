"""GF-Minecraft and its dialect Micro-World: entries that lead to their frames, and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.minecraft_clips import clip, done, shown
from makers.readings import recordings_in, the_recording
from makers.recordings import ingest_here

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput

COLUMNS = "Original video name,Start frame index,End frame index,Prompt"


def entry(ws: int = 0, ad: int = 0, scs: int = 0, **more: Any) -> dict[str, Any]:
    still = {"pitch": 0.0, "yaw": 0.0, "pitch_delta": 0.0, "yaw_delta": 0.0, "pos": [0, 70, 0]}
    return {"ws": ws, "ad": ad, "scs": scs, **still, **more}


ENTRIES = [
    entry(2, 2, 3, pitch_delta=9.0),
    entry(1, pitch_delta=0.2, yaw_delta=-1.0, pitch=3.0, yaw=-15.0, pos=[1.5, 70, -2]),
    entry(ad=1, scs=1),
    entry(2, 2, 2),
    entry(scs=3),
]
DONE = [
    {"w": 1, "camera_pitch": 3.0, "camera_yaw": -15.0},
    {"a": 1, "space": 1},
    {"s": 1, "d": 1, "shift": 1},
    {"ctrl": 1},
    None,
]


def written(
    root: Path,
    actions: object = None,
    frames: int = 5,
    captions: str | None = None,
    name: str = "seed_1_part_1",
    folder: str = "metadata",
) -> Path:
    if actions is None:
        actions = {str(number): each for number, each in enumerate(ENTRIES)}
    (root / folder).mkdir(parents=True, exist_ok=True)
    told = {"biome": "desert", "initial_weather": "rain", "actions": actions}
    (root / folder / f"{name}.json").write_text(json.dumps(told))
    if captions is not None:
        (root / "annotation.csv").write_text(f"{COLUMNS}\n{captions}")
    return clip(root / "video" / f"{name}.mp4", frames, 16)


def test_entry_k_plus_1_is_what_was_done_after_frame_k(tmp_path: Path) -> None:
    written(tmp_path)

    opened = the_recording(tmp_path)

    assert shown(opened) == [0, 1, 2, 3, 4]
    assert done(opened) == DONE
    assert opened.actions is not None
    assert opened.actions.space.name == "microworld9"
    assert opened.notes == ()


def test_an_entry_also_tells_where_the_player_is_at_its_frame_but_entry_0_is_junk(
    tmp_path: Path,
) -> None:
    written(tmp_path)
    states = the_recording(tmp_path).states

    assert states is not None
    assert np.isnan(states[0]).all()
    assert states[1].tolist() == [1.5, 70, -2, 3, -15]


def test_keys_are_numbers_in_any_order(tmp_path: Path) -> None:
    actions = {str(k): entry(1 if k == 9 else 2) for k in range(12)}
    written(tmp_path, dict(sorted(actions.items())), frames=12)
    said = done(the_recording(tmp_path))

    assert said[8] == {"w": 1}, "entry 9 led to frame 9, though 10 and 11 stand before it"
    assert said[:8] == [{"s": 1}] * 8


def test_what_led_to_a_frame_without_an_entry_is_not_known(tmp_path: Path) -> None:
    written(tmp_path, {str(k): ENTRIES[k] for k in (0, 1, 2, 4)} | {"5": entry(), "900": entry()})
    opened = the_recording(tmp_path)

    assert done(opened) == [DONE[0], DONE[1], None, DONE[3], None]
    assert opened.notes == (
        "1 frames without an entry: what led to them is not known",
        "2 entries beyond the last frame: not taken",
    )
    assert opened.clock.frames_expected == opened.clock.frames_found + 2


def test_the_keyboard_only_part_need_not_tell_of_the_mouse(tmp_path: Path) -> None:
    written(tmp_path, {str(k): {"ws": 1, "ad": 0, "scs": 0} for k in range(5)})
    opened = the_recording(tmp_path)

    assert done(opened) == [{"w": 1}] * 4 + [None]
    assert opened.states is not None
    assert np.isnan(opened.states).all()


CAPTIONED = (
    'seed_1_part_1.mp4,0,2,"A ""grey"" plain, rain"\nseed_1_part_1.mp4,2,3,Later\nx.mp4,0,4,No'
)


def test_captions_hold_for_their_frames_both_ends_included_and_the_later_one_wins(
    tmp_path: Path,
) -> None:
    written(tmp_path, captions=CAPTIONED)
    assert the_recording(tmp_path).texts == [*['A "grey" plain, rain'] * 2, *["Later"] * 2, None]


def test_captioned_stretches_may_be_recordings_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, captions=CAPTIONED)

    opened = recordings_in(tmp_path, recordings="captions")

    first, second = opened.values()
    assert [name.partition("#")[2] for name in opened] == ["frames_0_2", "frames_2_3"]
    assert (shown(first), shown(second)) == ([0, 1, 2], [2, 3])
    assert (done(first), done(second)) == (DONE[:3], DONE[2:4])
    assert (set(first.texts or ()), set(second.texts or ())) == (
        {'A "grey" plain, rain'},
        {"Later"},
    )


def test_a_scene_with_detected_collisions_is_of_micro_world(tmp_path: Path) -> None:
    actions = {str(k): entry(1, collision=int(k == 3), jump_invalid=0) for k in range(5)}
    written(tmp_path, actions, name="scene_12", folder="metadata-detection")

    (found,) = discover([tmp_path]).recordings
    states = the_recording(tmp_path).states

    assert (found.format, found.provenance.license) == ("micro-world", "openrail")
    assert found.provenance.map == "desert"
    assert states is not None
    assert states[1:, 5].tolist() == [0, 0, 1, 0]


def test_it_is_ingested_with_its_captions(tmp_path: Path) -> None:
    captions = "seed_1_part_1.mp4,0,31,A desert"
    written(tmp_path / "in", {str(k): entry(1) for k in range(32)}, 32, captions)
    out = tmp_path / "corpus"

    ingest_here(tmp_path / "in", out, IngestSettings(tokenizer=None, size=(96, 64)))

    steps = Corpus.open(out).scan().collect()
    assert steps["text"].to_list() == ["A desert"] * 20
    assert steps["actions"].is_null().to_list() == [False] * 19 + [True]
    assert np.isnan(steps["state"].to_list()[0]).all()
    assert steps["state"].to_list()[-1] == [0, 70, 0, 0, 0]


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ([], Reason.LOG_TYPE),
        ({}, Reason.LOG_EMPTY),
        ({"0": entry(), "one": entry()}, Reason.LOG_TYPE),
        ({"0": entry(), "-1": entry()}, Reason.LOG_TYPE),
        ({"0": entry(), "1": 3}, Reason.LOG_TYPE),
        ({str(k): entry(3) for k in range(5)}, Reason.LOG_RANGE),
        ({str(k): entry(scs=None) for k in range(5)}, Reason.LOG_RANGE),  # type: ignore[arg-type]
        ({str(k): entry(yaw_delta="x") for k in range(5)}, Reason.LOG_TYPE),
        ({str(k): entry(yaw_delta=999) for k in range(5)}, Reason.LOG_RANGE),
        ({str(k): entry() for k in range(50)}, Reason.LOG_COVERAGE),
    ],
)
def test_a_table_of_anything_else_is_refused(
    tmp_path: Path, actions: object, reason: Reason
) -> None:
    written(tmp_path, actions)
    metadata = tmp_path / "metadata/seed_1_part_1.json"
    metadata.write_text(metadata.read_text()[:-1] + ', "ws": 0, "ad": 0, "scs": 0}')

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("captions", "reason"),
    [
        (b"a,b\n1,2\n", Reason.METADATA),
        (f"{COLUMNS}\nseed_1_part_1.mp4,0,x,Hi\n".encode(), Reason.METADATA),
        (f'{COLUMNS}\nseed_1_part_1.mp4,0,1,"Hi\n'.encode(), Reason.METADATA),
        (f"{COLUMNS}\nseed_1_part_1.mp4,0,1,{'x' * 200_000}\n".encode(), Reason.METADATA),
        (b"\xff\xfe\x00", Reason.LOG_ENCODING),
    ],
)
@pytest.mark.parametrize("divided", ["videos", "captions"])
def test_damaged_captions_are_refused(
    tmp_path: Path, captions: bytes, reason: Reason, divided: str
) -> None:
    written(tmp_path)
    (tmp_path / "annotation.csv").write_bytes(captions)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path, recordings=divided)

    assert refused.value.reason is reason

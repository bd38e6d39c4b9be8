"""Exports read back by our own readers: equal where the format loses nothing."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from makers.exports import SIZE, actions_of, picture_corpus, picture_of
from makers.readings import frames_of, recordings_in
from makers.video_clips import read_stamp

import wham_data
from wham_data.pipelines.readers import discover
from wham_data.pipelines.writers.minecraft.oasis import one_hot_rows
from wham_data.pipelines.writers.parts import is_numbered
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import OpenRecording
from wham_data.schemas.wham_tokens import bins_from_measured

NUMPY_ARRAYS = [
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    np.dtypes.Int64DType,
]


def read_back(out: Path, format: str, **options: str) -> dict[str, OpenRecording]:
    """Every recording of an export, open, by its name below it."""
    return recordings_in(out, format, **options)


def assert_shows(
    opened: OpenRecording, number: int, steps: range, size: tuple[int, int] = SIZE
) -> None:
    shown = frames_of(opened, size)
    assert len(shown) == len(steps)
    for step, frame in zip(steps, shown, strict=True):
        assert (frame == picture_of(number, step, size)).all(), step


def test_wham_npz_is_read_back_equal(tmp_path: Path) -> None:
    name = f"FB{'0a' * 20}_1Movie.pb_step-0_tick-7_data.npz"
    episodes = {"e0": {"split": "val"}, "r-0": {"source": f"raw/{name}"}}
    picture_corpus(tmp_path / "corpus", "wham16", episodes, size=(300, 180), state_size=5)

    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    found = read_back(tmp_path / "out", "wham-npz")
    assert sorted(found) == [f"train/{name}", "val/e0.npz"]
    for number, path in enumerate(["val/e0.npz", f"train/{name}"]):
        opened = found[path]
        assert_shows(opened, number, range(6), (300, 180))
        wanted, _ = bins_from_measured(actions_of(load_space("wham16"), number, 6))
        assert opened.actions is not None
        assert (bins_from_measured(opened.actions.values)[0] == wanted).all()
        assert opened.states is not None
        assert opened.states[:, 4].tolist() == [0, 1, 2, 3, 4, 5]
    recording = discover([tmp_path / "out/train"], "wham-npz").recordings[0]
    assert recording.provenance.player == f"FB{'0a' * 20}_1"


def test_wham_npz_has_one_rate_and_size(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus")

    with pytest.raises(UsageError, match=r"10 Hz and 300x180, the corpus 10 Hz and 96x64"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")


@pytest.mark.parametrize("version", ["3.0", "2.1"])
@pytest.mark.parametrize("pictures", ["image", "video"])
def test_lerobot_is_read_back_equal(tmp_path: Path, version: str, pictures: str) -> None:
    episodes = {"a": {"split": "val"}, "b": {"game": "maze"}, "c": {}}
    content = {"state_size": 3, "reward": True, "text": True}
    picture_corpus(tmp_path / "corpus", "xinput16", episodes, unknown=(5,), **content)

    options = {"version": version, "pictures": pictures}
    report = wham_data.export(
        tmp_path / "corpus", to="lerobot", out=tmp_path / "out", options=options
    )

    assert (report.written, report.steps, report.left_out_steps) == (3, 15, 3)
    found = read_back(tmp_path / "out", "lerobot")
    assert len(found) == 3
    for path, opened in found.items():
        place = int(path.rpartition("_")[2])
        number = (1, 2, 0)[place]  # train before val
        if pictures == "image":
            assert_shows(opened, number, range(5))
        else:
            stamps = [read_stamp(frame) for frame in frames_of(opened, SIZE)]
            assert stamps == [100 * number + step for step in range(5)]
        assert opened.frame_times_ns.tolist() == [step * 100_000_000 for step in range(5)]
        assert opened.actions is not None
        assert opened.actions.space.name == "xinput16"
        wanted = actions_of(load_space("xinput16"), number, 6)[:5]
        assert (opened.actions.values == wanted.astype(np.float64)).all()
        assert opened.rewards is not None
        assert opened.rewards.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert opened.states is not None
        assert opened.states[:, 2].tolist() == [0, 1, 2, 3, 4]
        assert list(opened.texts or ()) == ["task 0"] * 4 + ["task 1"]


def test_lerobot_says_splits_as_ranges_and_figures_over_all_episodes(tmp_path: Path) -> None:
    import json

    episodes = {"a": {"split": "test"}, "b": {}, "c": {"game": "maze"}}
    picture_corpus(tmp_path / "corpus", "vector2", episodes, rate=Fraction(20))

    wham_data.export(tmp_path / "corpus", to="lerobot", out=tmp_path / "out")

    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"]) == ("v3.0", 20)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 18, 2)
    assert info["splits"] == {"train": "0:2", "test": "2:3"}
    assert info["features"]["action"]["names"] == ["action_0", "action_1"]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    actions = np.concatenate([actions_of(load_space("vector2"), k, 6) for k in range(3)])
    assert np.allclose(stats["action"]["mean"], actions.mean(axis=0))
    assert np.allclose(stats["action"]["std"], actions.std(axis=0))
    shown = [picture_of(k, step)[::2, ::2] for k in range(3) for step in range(6)]
    pictures = np.array(shown) / 255
    figures = stats["observation.images.game"]
    assert np.allclose(np.ravel(figures["mean"]), pictures.mean(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(figures["std"]), pictures.std(axis=(0, 1, 2)), atol=1e-2)
    assert np.shape(figures["max"]) == (3, 1, 1)


@pytest.mark.parametrize("space", ["vector2", "discrete4", "numbers3", "own"])
@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_lerobot_keeps_the_action_space(tmp_path: Path, space: str, version: str) -> None:
    if space == "own":
        space = str(tmp_path / "own.toml")
        (tmp_path / "own.toml").write_text(
            'name = "own"\n[[dimensions]]\nnames = ["lift.pos", "grip.pos"]\nkind = "axis"\n'
            'low = -90\nhigh = 90\nunit = "degree"\n'
        )
    picture_corpus(tmp_path / "corpus", space)

    options = {"version": version, "pictures": "none"}
    wham_data.export(tmp_path / "corpus", to="lerobot", out=tmp_path / "out", options=options)

    for opened in read_back(tmp_path / "out", "lerobot").values():
        assert opened.actions is not None
        assert opened.actions.space == load_space(space)


def test_lerobot_of_the_real_package(tmp_path: Path) -> None:
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    episodes = {"a": {"split": "val"}, "b": {}}
    picture_corpus(tmp_path / "corpus", "xinput16", episodes, state_size=3, text=True)
    options = {"pictures": "image"}
    wham_data.export(tmp_path / "corpus", to="lerobot", out=tmp_path / "out", options=options)

    dataset = lerobot.LeRobotDataset("owner/name", root=tmp_path / "out")

    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (2, 12, 10)
    step = dataset[7]  # of the second episode: train comes before val
    picture = (step["observation.images.game"].permute(1, 2, 0).numpy() * 255).round()
    assert (picture == picture_of(0, 1)).all()
    assert (step["action"].numpy() == actions_of(load_space("xinput16"), 0, 6)[1]).all()
    assert step["task"] == "task 0"


def test_lerobot_without_pictures_needs_none(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "xinput16", frames="none")

    wham_data.export(
        tmp_path / "corpus", to="lerobot", out=tmp_path / "out", options={"pictures": "none"}
    )

    found = read_back(tmp_path / "out", "lerobot")
    assert [opened.pictureless for opened in found.values()] == [True, True]


@pytest.fixture(scope="module")
def csgo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one episode that is longer than a file, and one that came from such a file."""
    folder = tmp_path_factory.mktemp("csgo") / "corpus"
    source = "/data/1-200/hdf5_dm_july2021_3.hdf5"
    episodes = {
        "a-0": {"n_steps": 1004, "split": "test"},
        "b-0": {"n_steps": 4, "format": "csgo-hdf5", "source": source},
    }
    picture_corpus(folder, "csgo51", episodes, size=(16, 12), state_size=56, rate=Fraction(16))
    return folder


def test_hdf5_csgo_is_read_back_equal_in_files_of_1000_frames(tmp_path: Path, csgo: Path) -> None:
    report = wham_data.export(csgo, to="hdf5-csgo", out=tmp_path / "out")

    found = read_back(tmp_path / "out", "csgo-hdf5")
    names = ["test/hdf5_a-0_0.hdf5", "test/hdf5_a-0_1000.hdf5", "train/hdf5_dm_july2021_3.hdf5"]
    assert sorted(found) == names
    assert (report.written, report.found) == (3, 3)
    whole = actions_of(load_space("csgo51"), 0, 1004)
    for name, number, steps in zip(names, (0, 0, 1), (1000, 4, 4), strict=True):
        opened = found[name]
        first = int(name.rpartition("_")[2].removesuffix(".hdf5")) if number == 0 else 0
        assert_shows(opened, number, range(first, first + steps), (16, 12))
        wanted = actions_of(load_space("csgo51"), 1, 4) if number else whole[first : first + steps]
        assert opened.actions is not None
        assert (opened.actions.values == wanted).all()
    states = found[names[2]].states
    assert states is not None
    assert states[:, 55].tolist() == [0, 1, 2, 3]
    assert found[names[0]].states is None, "they are told of that game alone"
    listed = (tmp_path / "out/test_split.txt").read_text().split("\n")
    assert listed == ["hdf5_a-0_0.hdf5", "hdf5_a-0_1000.hdf5"]


def test_short_files_can_be_left_out_and_are_counted(tmp_path: Path, csgo: Path) -> None:
    report = wham_data.export(csgo, to="hdf5-csgo", out=tmp_path / "out", options={"short": "drop"})

    assert (report.written, report.left_out_steps) == (1, 8)
    with h5py.File(tmp_path / "out/test/hdf5_a-0_0.hdf5") as file:
        assert file["frame_999_y"].dtype == np.float64


def test_diamond_of_numbered_actions_is_read_back_equal_and_by_torch(tmp_path: Path) -> None:
    episodes = {"a": {}, "b": {"split": "val"}, "c": {}}
    picture_corpus(tmp_path / "corpus", "atari18", episodes, reward=True, rate=Fraction(15))

    wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out")

    meanings = ",".join(load_space("atari18").names)
    found = read_back(tmp_path / "out", "diamond-atari", action_names=meanings)
    assert sorted(found) == ["train/000/00/0/0.pt", "train/000/00/1/1.pt", "val/000/00/0/0.pt"]
    for (_, opened), number in zip(sorted(found.items()), (0, 2, 1), strict=True):
        assert_shows(opened, number, range(6))
        wanted = actions_of(load_space("atari18"), number, 6)
        assert opened.actions is not None
        assert (opened.actions.values == wanted).all()
        assert opened.rewards is not None
        assert opened.rewards.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]

    episode = torch.load(tmp_path / "out/train/000/00/1/1.pt", weights_only=True)
    assert list(episode) == ["obs", "act", "rew", "end", "trunc", "info"]
    assert (episode["obs"].shape, episode["obs"].dtype) == ((6, 3, 64, 96), torch.uint8)
    assert (episode["obs"].numpy()[2].transpose(1, 2, 0) == picture_of(2, 2)).all()
    assert episode["act"].dtype == torch.int64
    with torch.serialization.safe_globals(NUMPY_ARRAYS):
        info = torch.load(tmp_path / "out/train/info.pt", weights_only=True)
    assert (info["num_episodes"], info["num_steps"], info["is_static"]) == (2, 12, False)
    assert (info["lengths"].tolist(), info["start_idx"].tolist()) == ([6, 6], [0, 6])
    assert info["counter_rew"] == Counter({1.0: 10, 0.0: 2})
    assert info["counter_end"] == Counter({0: 12})


def test_diamond_of_csgo_is_read_back_equal_and_names_the_file_of_full_resolution(
    tmp_path: Path,
    csgo: Path,
) -> None:
    wham_data.export(csgo, to="diamond", out=tmp_path / "out")

    found = read_back(tmp_path / "out", "diamond-csgo")
    names = ["test/000/00/0/0.pt", "test/000/00/1/1.pt", "train/000/00/0/0.pt"]
    assert sorted(found) == names
    assert_shows(found[names[1]], 0, range(1000, 1004), (16, 12))
    assert_shows(found[names[2]], 1, range(4), (16, 12))
    opened = found[names[2]]
    assert opened.actions is not None
    assert (opened.actions.values == actions_of(load_space("csgo51"), 1, 4)).all()
    files = [torch.load(tmp_path / "out" / n, weights_only=True)["info"] for n in names[1:]]
    assert [info["original_file_id"] for info in files] == [
        "test/hdf5_a-0_1000.hdf5",
        "train/hdf5_dm_july2021_3.hdf5",
    ]


@pytest.mark.parametrize("names", [["move_is_0", "move_is_1"], ["a_is_minus1", "a_is_0", "a_is_1"]])
def test_diamond_gets_one_choice_with_a_name_as_whole_numbers(
    tmp_path: Path, names: list[str]
) -> None:
    space = ActionSpace("toy", tuple(Dimension(name, "button", 0.0, 1.0) for name in names))
    assert is_numbered(space)
    picture_corpus(tmp_path / "corpus", space, 1)

    wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out")

    act = torch.load(tmp_path / "out/train/000/00/0/0.pt", weights_only=False)["act"]
    wanted = actions_of(space, 0, 6).argmax(axis=1)
    assert act.dtype == torch.int64
    assert act.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("space", "dtype", "noted"),
    [
        ("atari18", torch.int64, False),
        ("procgen15", torch.int64, False),
        ("meltingpot9", torch.int64, False),
        ("discrete7", torch.int64, False),
        ("csgo51", torch.float64, False),
        ("xinput16", torch.float32, True),
    ],
)
def test_diamond_gets_the_kind_of_actions_that_its_models_take_or_it_is_said(
    tmp_path: Path, space: str, dtype: torch.dtype, noted: bool
) -> None:
    picture_corpus(tmp_path / "corpus", space, 1)

    report = wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out")

    act = torch.load(tmp_path / "out/train/000/00/0/0.pt", weights_only=True)["act"]
    assert act.dtype == dtype
    assert act.ndim == (1 if dtype == torch.int64 else 2)
    assert any("take numbered actions, or vectors of 0 and 1" in n for n in report.notes) == noted
    assert noted or dtype == torch.int64 or set(act.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    "names", [["move_is_0", "jump_is_0"], ["left", "right"], ["is_0", "x_is_1"]]
)
def test_buttons_of_several_choices_are_no_numbered_actions(names: list[str]) -> None:
    buttons = tuple(Dimension(name, "button", 0.0, 1.0) for name in names)

    assert not is_numbered(ActionSpace("toy", buttons))


def test_a_step_of_two_numbered_actions_has_no_place_in_diamond(tmp_path: Path) -> None:
    from wham_data.pipelines.writers import parts

    picture_corpus(tmp_path / "corpus", "csgo51")
    assert not parts.is_numbered(load_space("csgo51"))
    assert parts.is_numbered(load_space("discrete7"))
    mapping = tmp_path / "map.toml"
    mapping.write_text('source = "csgo51"\ntarget = "discrete2"\n[rules]\naction_0 = "mouse_x_0"\n')

    report = wham_data.export(
        tmp_path / "corpus", to="diamond", out=tmp_path / "out", mapping=mapping
    )

    assert report.exit_code == 6
    assert "has 0 numbered actions, expected one" in report.failed[0].message


def test_numbers_go_on_without_a_gap_where_an_episode_failed(tmp_path: Path) -> None:
    episodes = {"a": {}, "b": {}, "c": {}}
    picture_corpus(tmp_path / "corpus", "discrete4", episodes, unknown=(0,))
    mapping = tmp_path / "map.toml"
    rules = "".join(f'action_{k} = "action_{k}"\n' for k in range(3))
    mapping.write_text(f'source = "discrete4"\ntarget = "discrete3"\n[rules]\n{rules}')
    first, again = (
        wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out", mapping=mapping)
        for _ in range(2)
    )

    fits = [
        name
        for number, name in enumerate(episodes)
        if not actions_of(load_space("discrete4"), number, 6)[1:, 3].any()
    ]
    assert first.written == len(fits) == 3 - len(first.failed)
    assert (again.written, again.already_there, again.exit_code) == (0, len(fits), 3)
    assert again.failed == first.failed
    assert 0 < len(fits) < 3, "the test needs both"
    files = sorted(path.name for path in (tmp_path / "out/train").rglob("[0-9]*.pt"))
    assert files == [f"{number}.pt" for number in range(len(fits))]


@pytest.mark.parametrize("space", ["oasis25", "vpt"])
def test_oasis_is_read_back_with_its_actions_equal_to_half_a_degree(
    tmp_path: Path, space: str
) -> None:
    episodes = {"a": {}, "b": {"split": "test"}}
    picture_corpus(tmp_path / "corpus", space, episodes, rate=Fraction(20))

    wham_data.export(tmp_path / "corpus", to="oasis", out=tmp_path / "out")

    native, oasis = load_space(space), load_space("oasis25")
    found = read_back(tmp_path / "out", "open-oasis")
    assert sorted(found) == ["test/b.mp4", "train/a.mp4"]
    for number, path in enumerate(["train/a.mp4", "test/b.mp4"]):
        opened = found[path]
        stamps = [read_stamp(frame) for frame in frames_of(opened, SIZE)]
        assert stamps == [100 * number + step for step in range(6)]
        wanted = actions_of(native, number, 6)[:, [native.index(name) for name in oasis.names]]
        camera = [oasis.index("camera_pitch"), oasis.index("camera_yaw")]
        wanted[:, camera] = np.rint(wanted[:, camera].astype(np.float64) * 2) / 2
        assert opened.actions is not None
        assert (opened.actions.values == wanted).all()
    rows = torch.load(tmp_path / "out/train/a.one_hot_actions.pt", weights_only=True)
    assert (rows.shape, rows.dtype) == ((6, 25), torch.float32)


def test_oasis_takes_every_variant_of_minecraft_and_no_other_game(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "microworld9", 1, rate=Fraction(20))
    picture_corpus(tmp_path / "atari", "atari18", 1)

    report = wham_data.export(tmp_path / "corpus", to="oasis", out=tmp_path / "out")

    assert (report.actions, report.converted_from, report.lost) == ("vpt", "microworld9", ())
    rows = torch.load(tmp_path / "out/train/e0.one_hot_actions.pt", weights_only=True)
    forward = actions_of(load_space("microworld9"), 0, 6)[:, 0]
    assert rows[:, load_space("oasis25").index("forward")].tolist() == forward.tolist()
    with pytest.raises(
        UsageError, match="oasis needs actions in oasis25, the corpus has them in atari18"
    ):
        wham_data.export(tmp_path / "atari", to="oasis", out=tmp_path / "o")


def test_turns_of_more_than_20_degrees_a_step_are_cut_and_counted() -> None:
    vpt, oasis = load_space("vpt"), load_space("oasis25")
    actions = np.zeros((2, vpt.size), np.float32)
    actions[:, vpt.index("camera_yaw")] = [-30, 19.8]

    rows, clamped = one_hot_rows(actions, vpt)

    assert (rows[:, oasis.index("camera_yaw")].tolist(), clamped) == ([-1, 1], 1)


def test_a_corpus_of_source_rates_needs_one_rate_and_even_steps(tmp_path: Path) -> None:
    both = {"a": {"source_fps": 20.0}, "b": {"source_fps": 30.0}}
    picture_corpus(tmp_path / "two", "vpt", both, rate="native")
    picture_corpus(tmp_path / "uneven", "vpt", {"a": {"source_fps": 20.0}}, rate="native")

    with pytest.raises(UsageError, match=r"keeps those of its sources.*and they differ"):
        wham_data.export(tmp_path / "two", to="oasis", out=tmp_path / "out")
    report = wham_data.export(tmp_path / "uneven", to="oasis", out=tmp_path / "out")

    assert "its steps are not 20 a second throughout" in report.failed[0].message

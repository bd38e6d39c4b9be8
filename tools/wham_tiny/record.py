"""Record real gameplay as `video-log` recordings: video, the pad at every tic, and metadata.

    python record.py --out recordings [--only doom] [--share demo] [--jobs 2]

A player uses a *virtual pad* (action space `xinput`). Each engine maps the pad to its own controls, so
all engines have the same action space. Row i of the log is the state of the pad from tic i to tic
i + 1. Frame i of the video is the screen at tic i. So frame i and row i lead to frame i + 1.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace
from engines import ENGINES
from pad import DIMENSIONS
from players import play

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Session:
    """One recording to make.

    engine, place     the game engine, and the level or scene
    seed              seed of the game and of the player
    policy            "random", "forward" or "wander"
    seconds           length of the recording
    share             "train", "held_out", "demo" (for the tokenizer) or "play" (for the world model)
    """

    engine: str
    place: str
    seed: int
    policy: str
    seconds: int
    share: str = "train"

    @property
    def name(self) -> str:
        """File name of the recording."""
        return f"{self.engine}_{self.place.replace('/', '-').lower()}_{self.seed:03d}"

    @property
    def match(self) -> str:
        """The name by which a corpus splits: the name of the recording; for `play` the place, so that
        a world model is tested in places that were not used for training."""
        return self.name.rpartition("_")[0] if self.share == "play" else self.name


def plan() -> list[Session]:
    """Every recording of wham-tiny's data. Held-out places occur in no training recording, except
    Airstriker's, which has only one, and MiniWorld's mazes, which are drawn from the seed."""
    maps = [f"MAP{n:02d}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 15, 16, 18, 20, 22)]
    maps += ["E1M1", "E1M2", "E1M4", "E1M6", "E2M1", "E2M3", "E2M5", "E3M1", "E3M3", "E4M1"]
    games = ["coinrun"] * 5 + ["jumper", "ninja", "climber", "caveflyer", "starpilot", "starpilot"]
    games += ["coinrun", "coinrun", "ninja"]
    rooms = ["Maze", "FourRooms", "Sidewalk", "PickupObjects", "CollectHealth", "WallGap"]
    rooms += ["YMazeLeft", "ThreeRooms", "RoomObjects", "Maze"]
    return [
        *(
            Session("doom", place, i, "random" if i % 4 == 3 else "wander", 40)
            for i, place in enumerate(maps)
        ),
        *(
            Session("doom", place, 100 + i, "wander", 30, "held_out")
            for i, place in enumerate(("MAP07", "MAP11", "E1M3", "E2M2"))
        ),
        *(
            Session(
                "procgen",
                f"{game}/{1000 * (i + 1)}",
                200 + i,
                "random" if i % 5 == 4 else "forward",
                30,
            )
            for i, game in enumerate(games)
        ),
        *(
            Session("procgen", f"{game}/{50000 + 1000 * i}", 300 + i, "forward", 30, "held_out")
            for i, game in enumerate(("coinrun", "coinrun", "starpilot"))
        ),
        *(
            Session("airstriker", "level1", 400 + i, ("random", "forward")[i % 2], 40)
            for i in range(5)
        ),
        Session("airstriker", "level1", 450, "random", 30, "held_out"),
        *(
            Session("miniworld", room, 500 + i, "random" if i % 3 == 2 else "wander", 30)
            for i, room in enumerate(rooms)
        ),
        *(
            Session("miniworld", room, 550 + i, "wander", 30, "held_out")
            for i, room in enumerate(("MazeS3", "PutNext"))
        ),
        Session("doom", "E1M5", 601, "wander", 12, "demo"),
        Session("procgen", "coinrun/91000", 602, "forward", 12, "demo"),
        Session("miniworld", "MazeS2", 603, "wander", 12, "demo"),
        *_play(),
    ]


def _play() -> list[Session]:
    """Two hours for the world model; many are random, so that it sees all stick positions."""
    maps = [f"MAP{n:02d}" for n in range(1, 25) if n not in (7, 11)]
    maps += [f"E{part}M{n}" for part in (1, 2, 3, 4) for n in (1, 2, 4, 6)]
    maps = [place for place in maps if place != "E2M2"]
    rooms = ["Maze", "MazeS3", "FourRooms", "MazeS2", "Sidewalk", "Maze"]
    rooms += ["MazeS3", "OneRoom", "Hallway", "YMazeLeft", "PickupObjects", "Maze"]
    return [
        *(
            Session("doom", place, 1000 + i, "random" if i % 3 == 2 else "wander", 120, "play")
            for i, place in enumerate(maps)
        ),
        *(
            Session(
                "procgen",
                f"coinrun/{200_000 + 1000 * i}",
                2000 + i,
                "random" if i % 4 == 3 else "forward",
                60,
                "play",
            )
            for i in range(33)
        ),
        *(
            Session("miniworld", room, 3000 + i, "random" if i % 2 else "wander", 60, "play")
            for i, room in enumerate(rooms)
        ),
    ]


def record(session: Session, out: Path) -> Path:
    """Record one session in `out`/<share>: NAME.mp4, NAME.csv and finally NAME.toml.

    Does nothing if NAME.toml exists already. Demo recordings are compressed more.
    """
    folder = out / session.share
    folder.mkdir(parents=True, exist_ok=True)
    video = folder / f"{session.name}.mp4"
    if video.with_suffix(".toml").exists():
        return video
    engine = ENGINES[session.engine](session.place, session.seed)
    height, width = engine.screen().shape[:2]
    demo = session.share == "demo"
    options = {"crf": "24" if demo else "18", "preset": "slow" if demo else "veryfast"}
    with (
        av.open(str(video), "w") as container,
        video.with_suffix(".csv").open("w", newline="") as log,
    ):
        stream = container.add_stream("libx264", rate=engine.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / engine.rate
        stream.codec_context.colorspace = Colorspace.ITU709.value
        stream.codec_context.color_range = ColorRange.MPEG.value
        stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        rows = csv.writer(log)
        rows.writerow(["time_ns", *DIMENSIONS])
        pads = play(session.policy, engine, session.seed)
        for tic in range(int(session.seconds * engine.rate)):
            frame = av.VideoFrame.from_ndarray(engine.screen(), format="rgb24").reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts, frame.time_base = tic, 1 / engine.rate
            container.mux(stream.encode(frame))
            pad = next(pads)
            when_ns = round(tic * SECOND_NS / engine.rate)
            rows.writerow([when_ns, *(f"{pad[name]:.4g}" for name in DIMENSIONS)])
            engine.tic(pad)
        container.mux(stream.encode(None))
    metadata = {
        "game": engine.game,
        "map": session.place,
        "match": session.match,
        "player": f"{session.policy}-{session.seed}",
        "license": engine.license,
        "actions": "xinput",
    }
    lines = [f'{key} = "{value}"\n' for key, value in metadata.items()]
    video.with_suffix(".toml").write_text("".join(lines))
    engine.close()
    return video


def main() -> None:
    """Record the selected sessions; skip sessions that are already recorded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--only", choices=sorted(ENGINES), help="record only this engine")
    parser.add_argument(
        "--share", choices=("train", "held_out", "demo", "play"), help="record only this share"
    )
    parser.add_argument("--jobs", type=int, default=1, help="recordings at the same time")
    arguments = parser.parse_args()
    sessions = [
        session
        for session in plan()
        if arguments.only in (None, session.engine) and arguments.share in (None, session.share)
    ]
    # One process per recording, because engines have global state and a crash must not affect the
    # next one. The processes run in a temporary folder, because engines write files there.
    with (
        tempfile.TemporaryDirectory() as scratch,
        multiprocessing.get_context("spawn").Pool(
            arguments.jobs, os.chdir, (scratch,), maxtasksperchild=1
        ) as pool,
    ):
        out = arguments.out.resolve()
        jobs = [(session, pool.apply_async(record, (session, out))) for session in sessions]
        for session, job in jobs:
            print(session.share, job.get(), flush=True)


if __name__ == "__main__":
    main()

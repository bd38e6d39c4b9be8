"""The file that log_pad.py and log_keys.py write: one row per change, in columns time_ms, control, value.

The log is in the folder into which OBS records. It notes when a new video appears there (the row
`video_start`) and at the end takes that video's name, so that `wham-data ingest` finds the two together.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".ts", ".flv", ".avi"}


class EventLog:
    """A log that is being written; safe to use from several threads. Times are of a monotonic clock."""

    def __init__(self, folder, offset_ms=0.0, now=time.perf_counter):
        self.folder, self.offset_ms, self.now, self.start = Path(folder), offset_ms, now, now()
        self.state, self.lock, self.video, self.before = {}, threading.Lock(), None, self.videos()
        self.path = self.folder / time.strftime("log-%Y%m%d-%H%M%S.csv")
        self.file = self.path.open("w", buffering=1)  # row by row, so that a crash loses none
        self.file.write("time_ms,control,value\n")

    def videos(self):
        """The videos that there are."""
        return {path for path in self.folder.iterdir() if path.suffix.lower() in VIDEOS}

    def hold(self, controls):
        """What buttons, sticks and triggers are now, by name; only what has changed is written."""
        with self.lock:
            self.write({k: v for k, v in controls.items() if self.state.get(k) != v}, self.now())
            self.state.update(controls)

    def move(self, **controls):
        """How far the mouse or its wheel went."""
        with self.lock:
            self.write(controls, self.now())

    def look(self):
        """Call this often: has the video started?"""
        new = set() if self.video else self.videos() - self.before
        if new:
            self.video = min(new)
            with self.lock:
                self.write({"video_start": 1}, self.now() + self.offset_ms / 1000)
            print(f"{self.video.name}: recording. Stop it in OBS first, then Ctrl+C here.")

    def write(self, controls, when):
        """Rows for the controls that have a name."""
        ms = (when - self.start) * 1000
        self.file.writelines(
            f"{ms:.3f},{name},{value:g}\n" for name, value in controls.items() if name
        )

    def run(self, what, poll, every_s):
        """Call `poll` until it says False, or until Ctrl+C."""
        print(f"logging {what}. Now start the recording in OBS.")
        try:
            while poll() is not False:
                self.look()
                time.sleep(every_s)
        except KeyboardInterrupt:
            pass

    def close(self, **controls):
        """The last row, and the video's name. Without a video the log keeps its own."""
        with self.lock:
            self.write(controls, self.now())
            self.file.close()
        path = self.video.with_suffix(".csv") if self.video else self.path
        if not path.exists():
            self.path = self.path.rename(path)
        print(self.path, "" if self.video else f": no video appeared in {self.folder}")


def arguments(about):
    """What is typed after the name of the logger."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folder", type=Path, help="folder into which OBS records")
    parser.add_argument("--offset-ms", type=float, default=0.0, help="found with wham-data inspect")
    given = parser.parse_args()
    return given if given.folder.is_dir() else sys.exit(f"{given.folder}: no such folder")

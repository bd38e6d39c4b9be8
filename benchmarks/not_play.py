"""Measure how well `wham-data filter` finds what is not play, and what it says of plain play.

    wham-data collect vizdoom:MAP01 --out recordings --minutes 22 --policy scripted --size 320x180
    wham-data ingest recordings --out corpus --tokenizer none --frames jpeg
    python benchmarks/not_play.py corpus

First the corpus as it is, which should hold nothing but play. Then a copy into which menus, pauses, loading
screens, black pictures and idle hands are put: precision and recall by step. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.interrupted import interrupted, labels, precision_and_recall, rewritten  # noqa: E402

from wham_data.corpus import Corpus  # noqa: E402
from wham_data.pipelines.curate.not_play.job import filter_corpus  # noqa: E402
from wham_data.pipelines.curate.not_play.rules import read_rules  # noqa: E402

KINDS = ("menu", "paused", "loading", "black", "idle")


def main() -> None:
    """Run and print."""
    source, rules, rng = Corpus.open(sys.argv[1]), read_rules(), np.random.default_rng(0)
    begun = time.process_time()
    plain = filter_corpus(source, rules)
    seconds = time.process_time() - begun
    wrong = sum(plain.flagged.values()) / plain.hours
    print(f"plain play: {plain.hours * 60:.1f} min, {wrong:.2%} flagged {dict(plain.flagged)}")
    print(f"HUD: {plain.games}; {plain.hours * 3600 / seconds:.0f} times real time on one core\n")
    space = source.info.action_space
    with tempfile.TemporaryDirectory() as folder:
        made, truth = rewritten(
            source,
            Path(folder) / "made",
            lambda steps: interrupted(steps, space, [*rng.permutation(KINDS)], rng),
        )
        report = filter_corpus(made, rules)
    found = [kind for each in report.episodes for kind in labels(each["parts"], each["n_steps"])]
    is_so = [kind for each in report.episodes for kind in truth[each["episode"]]]
    print("| kind | steps | precision | recall |\n|---|---|---|---|")
    for kind in KINDS:
        precision, recall = precision_and_recall(found, is_so, kind)
        print(f"| {kind} | {is_so.count(kind):,} | {precision:.3f} | {recall:.3f} |")


if __name__ == "__main__":
    main()

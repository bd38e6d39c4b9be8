"""Reports of runs, for people: `runs/<id>.json`. Nothing is ever decided on them but where to look again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from wham_data.corpus.storage.contract import Storage


def record_run(storage: Storage, run: Mapping[str, Any]) -> str:
    """Write the report of a run to `runs/`; returns the name of the file there."""
    text = json.dumps(dict(run), indent=2, ensure_ascii=False, default=str) + "\n"
    name = f"{uuid.uuid4().hex}.json"
    storage.put_if_absent(f"runs/{name}", text.encode("utf-8", "backslashreplace"))
    return name

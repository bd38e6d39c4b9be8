"""Run a command with an S3 server of another make: Ceph's gateway, on this machine, for as long as it takes.

    python tests/soak/ceph_rgw.py pytest tests/corpus/test_object_store.py tests/pipelines/ingest/test_ingest_store.py
    python tests/soak/ceph_rgw.py            # says what to export, and goes on until Ctrl-C

Unlike the server of the ordinary tests it checks signatures. One monitor, one disk in memory and the
gateway, all on loopback addresses and in a folder that is removed; the command finds the endpoint, a
bucket and keys in the variables that the tests read. Needs Debian's packages ceph-mon, ceph-osd and
radosgw; without them it says so and succeeds.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import S3Store

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
START_S = 60
BUCKET = "scratch"
SETTINGS = """\
[global]
fsid = {fsid}
mon host = {monitor}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
mon allow pool size one = true
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 32
"""


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running_gateway(folder: Path) -> Iterator[dict[str, str]]:
    """Variables that lead to a bucket of a gateway which lives for as long as the block."""
    settings, fsid, disk = folder / "ceph.conf", str(uuid.uuid4()), str(uuid.uuid4())
    monitor, port = f"127.0.0.1:{free_port()}", free_port()
    settings.write_text(
        SETTINGS.format(folder=folder, fsid=fsid, monitor=f"v2:{monitor}", port=port)
    )
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()

    def run(*words: str) -> None:
        line = [words[0], "--conf", str(settings), *words[1:]]
        done = subprocess.run(line, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode:
            raise SystemExit(f"{shlex.join(line)}: exit {done.returncode}: {done.stderr[-2000:]}")

    with ExitStack() as running:

        def start(*words: str) -> None:
            running.enter_context(daemon([*words, "--conf", str(settings), "--foreground"], folder))

        members = str(folder / "monmap")
        run("monmaptool", members, "--create", "--fsid", fsid, "--addv", "a", f"[v2:{monitor}]")
        run("ceph-mon", "--mkfs", "--id", "a", "--monmap", members)
        start("ceph-mon", "--id", "a")
        run("ceph", "osd", "new", disk, "0")
        run("ceph-osd", "--mkfs", "--id", "0", "--osd-uuid", disk)
        start("ceph-osd", "--id", "0")
        keys = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "AWS_REGION": "us-east-1",
        }
        run(
            *("radosgw-admin", "user", "create", "--uid", "test", "--display-name", "test"),
            *("--access-key", keys["AWS_ACCESS_KEY_ID"]),
            *("--secret-key", keys["AWS_SECRET_ACCESS_KEY"]),
        )
        start("radosgw", "--name", "client.rgw")
        url = f"http://127.0.0.1:{port}"
        make_bucket(url, keys)
        yield {"WHAM_DATA_TEST_ENDPOINT": url, "WHAM_DATA_TEST_BUCKET": BUCKET, **keys}


@contextmanager
def daemon(line: Sequence[str], folder: Path) -> Iterator[None]:
    """A server in the foreground of a process of its own, ended with the block."""
    with (folder / f"{line[0]}.out").open("wb") as out:
        server = subprocess.Popen(line, stdout=out, stderr=out)
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def make_bucket(url: str, keys: Mapping[str, str]) -> None:
    """Make the bucket as soon as the gateway answers."""
    store = S3Store(
        BUCKET,
        endpoint=url,
        access_key_id=keys["AWS_ACCESS_KEY_ID"],
        secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        region=keys["AWS_REGION"],
        client_options={"allow_http": True},
    )
    until = time.monotonic() + START_S
    while True:
        signed = obstore.sign(store, "PUT", "", timedelta(minutes=1))
        request = urllib.request.Request(signed, method="PUT")
        try:
            urllib.request.urlopen(request, timeout=START_S).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def main(command: Sequence[str]) -> int:
    if missing := missing_programs():
        print(f"ceph_rgw: skipped: {', '.join(missing)} not installed (ceph-mon ceph-osd radosgw)")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        began = time.monotonic()
        with running_gateway(Path(folder)) as variables:
            print(f"ceph_rgw: up in {time.monotonic() - began:.0f} s", flush=True)
            for name, value in variables.items():
                print(f"export {name}={value}", flush=True)
            if command:
                environment = {**os.environ, **variables}
                return subprocess.run(command, env=environment, check=False).returncode
            signal.pause()
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

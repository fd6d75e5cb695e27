"""Inside img2dataset's processes: threads share what is one a process, and no fault keeps a shard from its end."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webs import picture

from curate.fetch.limits import FetchLimits
from curate.io.web.outcomes import Failure

pytestmark = pytest.mark.skipif(find_spec("img2dataset") is None, reason="needs curate-train[fetch]")

ROWS, THREADS = 60, 8  # img2dataset keeps 2 x THREADS rows under way: more wait in its queue
PICTURE = picture(1)


class FakeFetcher:
    """In the place of transfers: one row of five is not there, the others are a picture."""

    made = 0

    def __init__(self, _: FetchLimits) -> None:
        time.sleep(0.1)  # long enough for all threads to want one
        type(self).made += 1

    def fetch(self, url: str) -> bytes:
        """Return a picture at once."""
        if int(url.rpartition("/")[2]) % 5 == 0:
            raise Failure("http 404")
        return PICTURE


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    from curate.fetch.workers import download

    monkeypatch.setattr(FakeFetcher, "made", 0)
    monkeypatch.setattr(download, "Fetcher", FakeFetcher)
    for made_once in (download._fetcher, download._beats):
        made_once.cache_clear()
    file = tmp_path / "0.feather"
    table = pa.table(
        {
            "url": [f"http://a.example/{i}" for i in range(ROWS)],
            "caption": ["text"] * ROWS,
            "row": list(range(ROWS)),
        }
    )
    with pa.OSFile(str(file), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return 0, str(file)


def downloader(out: Path, beats: Path) -> Any:
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    from curate.fetch.workers.download import GuardedDownloader

    resizer = Resizer(
        image_size=256, resize_mode="no", resize_only_if_bigger=False, disable_all_reencoding=True
    )
    told: dict[str, Any] = dict.fromkeys(
        ("compute_hash", "verify_hash_type", "user_agent_token", "disallowed_header_directives")
    )
    return GuardedDownloader(
        sample_writer_class=WebDatasetSampleWriter, resizer=resizer, thread_count=THREADS, save_caption=True,
        extract_exif=False, output_folder=str(out), column_list=["url", "caption", "row"], timeout=10,
        number_sample_per_shard=ROWS, oom_shard_count=5, encode_format="jpg", retries=0, limits=FetchLimits(),
        beats=str(beats), hashes_only=False, **told,
    )  # fmt: skip


def downloaded(tmp_path: Path, shard: tuple[int, str], beats: Path) -> Counter[str]:
    """Download the shard in a thread, so that what never ends is a failure and no more."""
    work = downloader(tmp_path, beats)
    found: list[tuple[bool, Any]] = []
    thread = threading.Thread(target=lambda: found.append(work(shard)), daemon=True)
    thread.start()
    thread.join(300)
    assert not thread.is_alive(), "it hangs"
    assert found == [(True, shard)]
    return Counter(pq.read_table(tmp_path / "00000.parquet")["status"].to_pylist())


def test_threads_that_begin_together_share_what_is_one_a_process(
    tmp_path: Path, shard: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = tmp_path / "beats"
    beats.mkdir()
    monkeypatch.setattr("curate.fetch.workers.download.BEAT_S", 0)
    assert downloaded(tmp_path, shard, beats) == {"success": 48, "failed_to_download": 12}
    assert FakeFetcher.made == 1
    [file] = beats.iterdir()
    assert json.loads(file.read_text()) == {"reasons": {"ok": 48, "http 404": 12}, "bytes": 48 * len(PICTURE)}


def test_reports_that_cannot_be_written_cost_no_row(tmp_path: Path, shard: tuple[int, str]) -> None:
    assert downloaded(tmp_path, shard, tmp_path / "nowhere") == {"success": 48, "failed_to_download": 12}

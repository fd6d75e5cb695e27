"""Linting tars of anyone: each fault is found and named, and the webdataset library shows what it costs."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from handmade_tars import Members, write_tar
from PIL import Image
from webdataset.autodecode import DecodingError

from curate.datasets.dataset import Dataset
from curate.datasets.lint.tars import lint
from curate.errors import RecipeError
from curate.io.tars.findings import KEPT, KINDS, Report

Jpeg = Callable[..., bytes]
Said = list[tuple[str, str]]


@pytest.fixture
def sound(jpeg: Jpeg) -> Members:
    """Members of four sound samples."""
    return [m for i in range(4) for m in ((f"s{i}.cls", b"1"), (f"s{i}.jpg", jpeg(i)))]


def said(report: Report) -> Said:
    return [(f.kind, f.member) for f in report.findings]


def by_webdataset(path: Path) -> list[dict[str, Any]]:
    """Return the samples of a tar as the webdataset library reads them."""
    return list(wds.WebDataset(str(path), shardshuffle=False, empty_check=False))


def test_sound_tars_give_no_findings(tmp_path: Path, sound: Members) -> None:
    tar = write_tar(tmp_path / "a.tar", sound)
    report = lint([str(tar)])
    assert (report.findings, report.counts, report.failed) == ([], {}, False)
    assert (report.shards, report.samples, report.members) == (1, 4, 8)
    assert report.bytes == tar.stat().st_size
    assert report.images == {"jpg": 4}
    assert len(by_webdataset(tar)) == 4


def test_our_own_shards_give_no_findings(built: Callable[..., Dataset]) -> None:
    data = built([{"caption": {"templates": ["a photo of a {}."]}}], overlay=False)
    report = lint([str(data.path / "shards")])
    assert report.findings == []
    assert (report.shards, report.samples) == (4, 60)


def test_dotted_keys_that_merge_are_named_and_webdataset_merges_them(
    tmp_path: Path, sound: Members, jpeg: Jpeg
) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, ("x.y.jpg", jpeg(8)), ("x.z.jpg", jpeg(9))])
    report = lint([str(tar)])
    assert ("merged samples", "x") in said(report)
    [finding] = report.kept["merged samples"]
    assert "x.y.jpg, x.z.jpg" in finding.what
    assert report.failed
    read = by_webdataset(tar)
    assert [s["__key__"] for s in read] == ["s0", "s1", "s2", "s3", "x"]  # one sample of two
    assert {"y.jpg", "z.jpg"} <= set(read[-1])
    assert "jpg" not in read[-1]


def test_name_that_is_the_start_of_another_merges_with_it(tmp_path: Path, sound: Members, jpeg: Jpeg) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, ("cat.jpg", jpeg(8)), ("cat.2.jpg", jpeg(9))])
    assert ("merged samples", "cat") in said(lint([str(tar)]))
    assert len(by_webdataset(tar)) == 5


def test_fields_with_a_dot_in_every_sample_are_meant_so(tmp_path: Path, jpeg: Jpeg) -> None:
    members = [(f"s{i}.{side}.jpg", jpeg(i)) for i in range(4) for side in ("left", "right")]
    report = lint([str(write_tar(tmp_path / "a.tar", members))])
    assert said(report) == [("no image", f"s{i}") for i in range(4)]
    assert not report.failed


def test_members_that_do_not_stand_together_are_named_and_webdataset_makes_halves(
    tmp_path: Path, sound: Members, jpeg: Jpeg
) -> None:
    tar = write_tar(tmp_path / "a.tar", [("x.jpg", jpeg(8)), *sound, ("x.cls", b"1")])
    report = lint([str(tar)])
    assert ("split sample", "x") in said(report)
    assert ("duplicate key", "x") not in said(report)
    assert [s["__key__"] for s in by_webdataset(tar)].count("x") == 2


def test_key_that_stands_twice_in_a_shard_is_named(tmp_path: Path, sound: Members) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, *sound[:2]])
    report = lint([str(tar)])
    assert said(report) == [("duplicate key", "s0")]
    assert [s["__key__"] for s in by_webdataset(tar)].count("s0") == 2


def test_key_in_two_shards_is_named_with_both(tmp_path: Path, sound: Members) -> None:
    first = write_tar(tmp_path / "a.tar", sound)
    second = write_tar(tmp_path / "b.tar", [(name.replace("s3", "t3"), data) for name, data in sound])
    report = lint([str(tmp_path)])
    assert said(report) == [("duplicate key", f"s{i}") for i in range(3)]
    assert {f.shard for f in report.findings} == {str(second)}
    assert all(str(first) in f.what for f in report.findings)
    assert lint([str(first)]).findings == []


def test_member_that_stands_twice_is_named_and_webdataset_refuses_it(tmp_path: Path, sound: Members) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, sound[-1]])
    report = lint([str(tar)])
    assert said(report) == [("duplicate member", "s3.jpg")]
    with pytest.raises(ValueError, match="duplicate file name"):
        by_webdataset(tar)


@pytest.mark.parametrize("cut", ["inside a member", "at a member's end"])
def test_cut_tar_is_named_and_webdataset_loses_samples(tmp_path: Path, sound: Members, cut: str) -> None:
    tar = write_tar(tmp_path / "a.tar", sound)
    with tarfile.open(tar) as archive:
        third = archive.getmembers()[5]
    at_end = third.offset_data + -(-third.size // 512) * 512
    tar.write_bytes(tar.read_bytes()[: at_end if cut == "at a member's end" else third.offset_data + 100])
    report = lint([str(tar)])
    assert report.counts["not a sound tar"] == 1
    [finding] = report.kept["not a sound tar"]
    assert "'s2.jpg'" in finding.what
    assert report.samples == 3
    if cut == "at a member's end":
        assert len(by_webdataset(tar)) == 3  # silently
        assert "no end-of-archive marker" in finding.what
    else:
        with pytest.raises(tarfile.ReadError):
            by_webdataset(tar)


def test_tars_laid_end_to_end_are_named_and_webdataset_reads_the_first(
    tmp_path: Path, sound: Members
) -> None:
    first = write_tar(tmp_path / "in/a.tar", sound).read_bytes()
    second = write_tar(tmp_path / "in/b.tar", [(f"t{name}", data) for name, data in sound]).read_bytes()
    tar = tmp_path / "both.tar"
    tar.write_bytes(first + second)
    assert said(lint([str(tar)])) == [("members after the end", "")]
    assert len(by_webdataset(tar)) == 4
    tar.write_bytes(first + b"rubbish")
    assert said(lint([str(tar)])) == [("bytes after the end", "")]


def test_empty_shard_is_named(tmp_path: Path, sound: Members) -> None:
    write_tar(tmp_path / "a.tar", sound)
    empty = write_tar(tmp_path / "b.tar", [])
    report = lint([str(tmp_path)])
    assert [(f.kind, f.shard) for f in report.findings] == [("empty shard", str(empty))]
    assert by_webdataset(empty) == []


def test_samples_unlike_the_others_are_counted_by_their_extensions(
    tmp_path: Path, sound: Members, jpeg: Jpeg
) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, ("x.jpg", jpeg(8)), ("y.cls", b"1"), ("z.jpg", jpeg(9))])
    report = lint([str(tar)])
    assert said(report) == [("no image", "y"), ("mixed extensions", "x"), ("mixed extensions", "y")]
    assert "2 samples have jpg, where 4 have cls jpg" in report.kept["mixed extensions"][0].what
    assert not report.failed  # warnings only


def test_sample_whose_image_has_a_dotted_name_is_told_why(tmp_path: Path, jpeg: Jpeg) -> None:
    tar = write_tar(tmp_path / "a.tar", [("a.b.jpg", jpeg(1)), ("a.b.cls", b"1")])
    [finding] = lint([str(tar)]).kept["no image"]
    assert finding.member == "a"
    assert "the extension of a.b.jpg begins at the first dot" in finding.what
    assert "jpg" not in by_webdataset(tar)[0]


def test_thousands_of_images_that_merge_are_not_all_named(tmp_path: Path, jpeg: Jpeg) -> None:
    image = jpeg(1)
    tar = write_tar(tmp_path / "a.tar", [(f"img.{i:04d}.jpg", image) for i in range(2000)])
    report = lint([str(tar)])
    assert said(report) == [("merged samples", "img"), ("no image", "img")]
    assert all("0000.jpg" in f.what and len(f.what) < 400 for f in report.findings)


def test_headers_of_the_webdataset_writer_are_told_for_what_they_weigh(tmp_path: Path, jpeg: Jpeg) -> None:
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path)) as sink:  # writes the time with a fraction
        for i in range(20):
            sink.write({"__key__": f"s{i}", "jpg": jpeg(i), "cls": 1})
    report = lint([str(path)])
    assert said(report) == [("PAX headers", "")]
    plain = write_tar(tmp_path / "b.tar", [(f"s{i}.{e}", d) for i in range(20)
                                           for e, d in (("jpg", jpeg(i)), ("cls", b"1"))])  # fmt: skip
    more = path.stat().st_size - plain.stat().st_size
    share = float(report.findings[0].what.split("%")[0]) / 100
    assert share == pytest.approx(more / path.stat().st_size, abs=0.05)
    assert "ShardWriter(..., mtime=int(time.time()))" in report.findings[0].what
    with wds.TarWriter(str(path), mtime=int(time.time())) as sink:
        sink.write({"__key__": "s0", "jpg": jpeg(0), "cls": 1})
    assert said(lint([str(path)])) == []


def png(width: int, height: int, *, bits: int = 8) -> bytes:
    """Return a small PNG whose header says what it likes."""
    import zlib

    stream = io.BytesIO()
    Image.new("I;16" if bits == 16 else "RGB", (2, 2)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_images_that_do_not_decode_are_named_with_the_reason(
    tmp_path: Path, sound: Members, jpeg: Jpeg
) -> None:
    big = jpeg(9, size=(300, 300))
    bad: Members = [
        ("cut.jpg", big[: len(big) // 2]),
        ("empty.jpg", b""),
        ("html.jpg", b"<!DOCTYPE html><p>404 Not Found"),
        ("bomb.png", png(60_000, 60_000)),
        ("jpeg.png", jpeg(3)),
    ]
    members = [*sound, *(m for name, data in bad for m in ((f"{name[:-4]}.cls", b"1"), (name, data)))]
    report = lint([str(write_tar(tmp_path / "a.tar", members))])
    found = {(f.kind, f.member): f.what for f in report.findings if f.kind != "mixed extensions"}
    assert found == {
        ("undecodable image", "cut.jpg"): "truncated",
        ("undecodable image", "empty.jpg"): "empty",
        ("undecodable image", "html.jpg"): "not an image",
        ("oversize image", "bomb.png"): "60000 x 60000 pixels is over the limit of 89478485",
        ("wrong extension", "jpeg.png"): "its bytes are jpg",
    }
    assert report.images == {"jpg": 5}
    assert not lint([str(tmp_path / "a.tar")], images=False).failed


def test_unusual_images_are_notes(tmp_path: Path, jpeg: Jpeg) -> None:
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    members = [
        ("a.jpg", jpeg(1, mode="CMYK")),
        ("b.gif", stream.getvalue()),
        ("c.png", png(2, 2, bits=16)),
    ]
    report = lint([str(write_tar(tmp_path / "a.tar", members))])
    notes = [(f.kind, f.member) for f in report.findings if f.severity == "note"]
    assert notes == [("animated", "b.gif"), ("CMYK", "a.jpg"), ("16 bits a channel", "c.png")]
    assert not report.failed


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "b/../../a.jpg"])
def test_names_that_lead_out_are_errors(tmp_path: Path, sound: Members, jpeg: Jpeg, name: str) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, (name, jpeg(8))])
    report = lint([str(tar)])
    assert ("escaping name", name) in said(report)
    done = subprocess.run(["tar", "tf", tar], capture_output=True, text=True, check=True)
    assert "Removing leading" in done.stderr


def test_names_with_two_dots_inside_do_not_lead_out(tmp_path: Path, jpeg: Jpeg) -> None:
    report = lint([str(write_tar(tmp_path / "a.tar", [("b..c/a.jpg", jpeg(8))]))])
    assert report.findings == []


def test_links_devices_and_sparse_files_are_told(tmp_path: Path, sound: Members) -> None:
    tar = write_tar(tmp_path / "a.tar", sound)
    with tarfile.open(tar, "a") as archive:
        for name, kind in (
            ("l.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
            ("d.jpg", tarfile.CHRTYPE),
            ("s.jpg", tarfile.GNUTYPE_SPARSE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "s0.jpg"
            archive.addfile(member)
    report = lint([str(tar)])
    assert said(report) == [
        ("sparse file", "s.jpg"),
        ("link", "l.jpg"),
        ("link", "h.jpg"),
        ("device", "d.jpg"),
    ]


def test_members_without_key_or_extension_are_told_and_webdataset_passes_over_them(
    tmp_path: Path, sound: Members
) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, ("README", b"x"), ("._s0.jpg", b"x")])
    report = lint([str(tar)])
    assert said(report) == [("no key", "README"), ("no key", "._s0.jpg")]
    assert len(by_webdataset(tar)) == 4


def test_texts_that_cannot_be_read_are_told(tmp_path: Path, jpeg: Jpeg) -> None:
    members: Members = [
        ("a.jpg", jpeg(1)), ("a.json", b"{"), ("a.txt", b"ok"),
        ("b.jpg", jpeg(2)), ("b.json", b"{}"), ("b.txt", b"\xff"),
    ]  # fmt: skip
    tar = write_tar(tmp_path / "a.tar", members)
    assert said(lint([str(tar)])) == [("unreadable field", "a.json"), ("unreadable field", "b.txt")]
    with pytest.raises(DecodingError):
        list(wds.WebDataset(str(tar), shardshuffle=False).decode())


def test_names_of_any_bytes_can_be_printed(
    tmp_path: Path, jpeg: Jpeg, run_curate: Callable[..., Any]
) -> None:
    tar = write_tar(tmp_path / "a.tar", [("h\udce9.jpg", jpeg(7)), ("\x1b[31m.jpg", b"")])
    result = run_curate("verify", tar)
    assert result.exit_code == 3
    assert "h\\udce9.jpg" in result.stdout
    assert "\\x1b[31m.jpg" in result.stdout
    assert "\x1b" not in result.stdout


def test_many_findings_of_a_kind_are_counted_and_the_first_kept(
    tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    tar = write_tar(tmp_path / "a.tar", [(f"{i:04d}.jpg", b"") for i in range(KEPT + 50)])
    report = lint([str(tar)])
    assert report.counts == {"undecodable image": KEPT + 50}
    assert [f.member for f in report.findings] == [f"{i:04d}.jpg" for i in range(KEPT)]
    printed = run_curate("verify", tar).stdout
    assert printed.count("\n") < 30
    assert f"undecodable image: {KEPT + 50} in all" in printed
    twice = write_tar(tmp_path / "b.tar", [(f"{i:04d}.jpg", b"") for i in range(KEPT + 50)])
    both = lint([str(tar), str(twice)], images=False)
    assert both.counts == {"duplicate key": KEPT + 50}
    assert len(both.findings) == KEPT


def test_findings_do_not_depend_on_the_number_of_workers(tmp_path: Path, jpeg: Jpeg) -> None:
    for t in range(3):
        members = [(f"{t}/{i:03d}.jpg", jpeg(i) if i % 3 else b"bad") for i in range(200)]
        write_tar(tmp_path / f"{t}.tar", members)
    reports = [lint([str(tmp_path)], workers=w).document() for w in (1, 2, 7)]
    assert reports[0]["counts"] == {"undecodable image": 201}
    assert reports[0] == reports[1] == reports[2]


def test_tars_of_object_stores_are_linted(tmp_path: Path, sound: Members, jpeg: Jpeg, memory: Any) -> None:
    tar = write_tar(tmp_path / "a.tar", [*sound, ("x.y.jpg", jpeg(8)), ("x.z.jpg", b"bad")])
    memory.pipe_file("/bucket/a.tar", tar.read_bytes())
    for path in ("memory://bucket/a.tar", "memory://bucket", "memory://bucket/*.tar"):
        found = said(lint([path]))
        assert ("merged samples", "x") in found
        assert ("undecodable image", "x.z.jpg") in found
    assert lint(["memory://bucket"]).images == {"jpg": 5}


@pytest.mark.parametrize("failures", [1, 1000])
def test_store_that_fails_is_asked_again_and_then_told(
    tmp_path: Path, sound: Members, memory: Any, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    from fsspec.implementations.memory import MemoryFile

    from curate.io import stores

    monkeypatch.setattr(stores, "WAIT_S", 0.001)
    memory.pipe_file("/failing/a.tar", write_tar(tmp_path / "a.tar", sound).read_bytes())
    left = [failures]
    read = MemoryFile.read

    def failing(stream: Any, *args: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("the store is busy")
        return read(stream, *args)

    monkeypatch.setattr(MemoryFile, "read", failing)
    report = lint(["memory://failing/a.tar"], images=False)
    assert report.samples == (4 if failures == 1 else 0)
    assert report.counts == ({} if failures == 1 else {"unreadable": 1})


def test_tar_that_may_not_be_read_is_told(tmp_path: Path, sound: Members) -> None:
    write_tar(tmp_path / "a.tar", sound)
    (tmp_path / "b.tar").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "c.tar")
    report = lint([str(tmp_path)])
    bad = [str(tmp_path / name) for name in ("b.tar", "c.tar")]
    assert [(f.kind, f.shard) for f in report.findings] == [("unreadable", path) for path in bad]
    assert report.samples == 4


def test_nothing_at_a_path_is_told(tmp_path: Path, run_curate: Callable[..., Any]) -> None:
    with pytest.raises(RecipeError, match="no tars at"):
        lint([str(tmp_path)])
    with pytest.raises(RecipeError, match="no such tar"):
        lint([str(tmp_path / "a.tar")])
    result = run_curate("verify", tmp_path / "a.tar")
    assert result.exit_code == 2
    assert "no such tar" in result.stderr


def test_command_prints_findings_and_a_summary(
    tmp_path: Path, sound: Members, run_curate: Callable[..., Any]
) -> None:
    tar = write_tar(tmp_path / "a.tar", sound)
    result = run_curate("verify", tar)
    assert result.exit_code == 0
    size = tar.stat().st_size
    assert result.stdout == (f"1 shard, 4 samples, {size:,} bytes; 4 jpg: 0 errors, 0 warnings, 0 notes\n")
    write_tar(tar, [*sound, ("x.cls", b"1")])
    assert run_curate("verify", tar).exit_code == 0  # warnings only
    write_tar(tar, [*sound, sound[0], ("x.jpg", b"")])
    result = run_curate("verify", tar, "--no-images")
    assert result.exit_code == 3
    assert f"error\tduplicate key\t{tar}\ts0\tstands twice in this shard" in result.stdout
    assert "undecodable" not in result.stdout
    answer = json.loads(run_curate("verify", tar, "--json").stdout)
    assert (answer["errors"], answer["samples"], answer["images"]) == (2, 6, {"jpg": 4})
    assert {f["kind"] for f in answer["findings"]} >= {"duplicate key", "undecodable image"}


def test_tars_are_named_as_they_were_given(
    tmp_path: Path, sound: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"in/{name}.tar", [*sound, ("x.jpg", b"")])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    report = lint(["../in/*.tar", "../in/a.tar"])
    assert [f.shard for f in report.findings if f.kind == "undecodable image"] == [
        "../in/a.tar",
        "../in/b.tar",
    ]
    assert {f.shard for f in lint([str(tmp_path / "in")]).findings} >= {str(tmp_path / "in/a.tar")}


def test_datasets_and_tars_are_verified_one_after_the_other(
    tmp_path: Path, sound: Members, built: Callable[..., Dataset], run_curate: Callable[..., Any]
) -> None:
    tar = write_tar(tmp_path / "in/a.tar", sound)
    one, two = built([], "one"), built([], "two")
    result = run_curate("verify", one.path, two.path)
    assert (result.exit_code, result.stdout.count("holds what it says")) == (0, 2)
    result = run_curate("verify", one.path, tar)
    assert result.exit_code == 2
    assert "one after the other" in result.stderr
    (two.path / "manifest.parquet").write_bytes(b"")
    result = run_curate("verify", one.path, two.path)
    assert result.exit_code == 3
    assert f"{two.path}: manifest.parquet" in result.stdout


def test_dataset_that_lost_its_document_is_not_taken_for_tars(
    built: Callable[..., Dataset], run_curate: Callable[..., Any]
) -> None:
    data = built([], overlay=False)
    (data.path / "dataset.json").unlink()
    result = run_curate("verify", data.path)
    assert result.exit_code == 2
    assert "no dataset.json" in result.stderr


def test_every_kind_has_a_severity() -> None:
    assert set(KINDS.values()) == {"error", "warning", "note"}

"""Archives are read file by file; what is no archive is said in one line."""

import io
import tarfile
import zipfile

import pytest

from ehrdl.errors import SchemaError
from ehrdl.sources.archive import content, members

FILES = [("set/1.txt", b"one"), ("set/2.txt", b""), ("readme", b"\x00\xff")]


def _tar(path, mode):
    with tarfile.open(path, mode) as archive:
        archive.add(path.parent, "set", recursive=False)
        for name, body in FILES:
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_a_tar_gives_its_files_in_order_and_no_folders(tmp_path, name, mode):
    _tar(tmp_path / name, mode)
    assert list(members(tmp_path / name)) == FILES


def test_a_zip_gives_its_files_in_order_and_no_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("set")
        for name, body in FILES:
            archive.writestr(name, body)
    assert list(members(tmp_path / "a.zip")) == FILES


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_what_is_no_archive_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(SchemaError, match=rf"{name}: is damaged, or no archive \(.*\); get the file again"):
        list(members(tmp_path / name))


def test_an_archive_that_ends_early_is_named(tmp_path):
    _tar(tmp_path / "a.tar.gz", "w:gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SchemaError, match="is damaged, or no archive"):
        list(members(tmp_path / "a.tar.gz"))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"cannot be read \(Is a directory\); get the file again"):
        content(tmp_path)

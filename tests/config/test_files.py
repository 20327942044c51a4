import os
from pathlib import Path

import pytest

from sidecar.config.files import check_pem, open_regular, read_bounded, signature
from sidecar.errors import KeyMaterialError
from tests.support.special_files import KINDS, special_file


def test_an_untouched_file_keeps_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a")
    assert signature(str(path)) == signature(str(path)) is not None


def test_the_swap_of_a_symlink_is_seen_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text(name)
        os.utime(tmp_path / name / "secret", ns=(0, 0))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "secret").symlink_to("..data/secret")
    before = signature(str(tmp_path / "secret"))
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "..data")
    assert signature(str(tmp_path / "secret")) != before


def test_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert signature(str(tmp_path / "none")) is None
    assert signature("a\0b") is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = str(special_file(tmp_path, kind))
    with pytest.raises(OSError, match=r"is not a regular file: '.*special'"):
        open_regular(path)
    with pytest.raises(OSError, match="is not a regular file"):
        check_pem(path)
    with pytest.raises(KeyMaterialError, match=r"special is not a regular file; name a file; a"):
        read_bounded(path, 10)


def test_a_symlink_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_bounded(str(tmp_path / "link"), 10) == b"text"
    check_pem(str(tmp_path / "link"))


def test_a_file_for_openssl_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "huge.pem"
    path.touch()
    os.truncate(path, 16 * 1024 * 1024 + 1)
    with pytest.raises(OSError, match="File too large"):
        check_pem(str(path))

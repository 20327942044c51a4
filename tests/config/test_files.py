import os
from pathlib import Path

from sidecar.config.files import signature


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

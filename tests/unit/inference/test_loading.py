"""What is kept between cells, and for how long."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casesim.errors import UserError
from casesim.inference import loading

Strings = loading.Cache[str]


class TestCache:
    """Least recently used, by bytes, and never stale."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        files = [tmp_path / name for name in "abc"]
        for file in files:
            file.write_text(file.name)
        return files

    @pytest.fixture
    def cache(self) -> Iterator[Strings]:
        self.loads: list[str] = []

        def load(path: Path) -> tuple[str, int]:
            self.loads.append(path.name)
            text = path.read_text()
            if text == "bad":
                raise UserError("bad")
            return text, 10

        with ThreadPoolExecutor(1) as loader:
            yield loading.Cache(load, 25, loader)

    def test_loads_once(self, cache: Strings, files: list[Path]) -> None:
        for _ in range(3):
            assert cache.fetch(files[0]).result() == ("a", 10)
        assert self.loads == ["a"]

    def test_forgets_the_least_recently_used(
        self, cache: Strings, files: list[Path]
    ) -> None:
        for number in (0, 1, 0, 2):
            cache.fetch(files[number]).result()
            cache.trim()
        assert self.loads == ["a", "b", "c"]
        cache.fetch(files[0]).result()
        assert self.loads == ["a", "b", "c"]
        cache.fetch(files[1]).result()
        assert self.loads == ["a", "b", "c", "b"]

    def test_rewritten_file_is_loaded_anew(
        self, cache: Strings, files: list[Path]
    ) -> None:
        assert cache.fetch(files[0]).result()[0] == "a"
        files[0].write_text("new")
        assert cache.fetch(files[0]).result()[0] == "new"

    def test_rewritten_companion_is_loaded_anew(
        self, cache: Strings, files: list[Path]
    ) -> None:
        cache.fetch(files[0], also=(files[1],)).result()
        files[1].write_text("longer")
        cache.fetch(files[0], also=(files[1],)).result()
        assert self.loads == ["a", "a"]

    def test_failure_is_not_remembered(self, cache: Strings, files: list[Path]) -> None:
        before = files[0].stat()
        files[0].write_text("bad")
        with pytest.raises(UserError, match="bad"):
            cache.fetch(files[0]).result()
        cache.trim()
        assert cache.fetch(files[1]).result()[0] == "b"
        files[0].write_text("a")
        os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
        assert cache.fetch(files[0]).result()[0] == "a"

    def test_missing_file_is_named(self, cache: Strings, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nothing"):
            cache.fetch(tmp_path / "nothing")

    def test_clear(self, cache: Strings, files: list[Path]) -> None:
        cache.fetch(files[0]).result()
        cache.clear()
        cache.fetch(files[0]).result()
        assert self.loads == ["a", "a"]

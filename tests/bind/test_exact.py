"""Exact search and the threads of numpy's BLAS."""

from __future__ import annotations

import threading

from bind import exact


def test_searches_side_by_side_leave_the_threads_as_they_were(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Controller:
        threads = 4

        def limit(self, limits: int) -> Controller:
            self.before, self.threads = self.threads, limits
            return self

        def restore_original_limits(self) -> None:
            self.threads = self.before

    blas = Controller()
    monkeypatch.setattr(exact, "_blas", lambda: blas)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with exact._blas_threads(1):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with exact._blas_threads(1):
            second_in.set()
            first_out.wait(10)
            assert blas.threads == 1  # the other left, this one is still inside

    searches = [threading.Thread(target=run) for run in (first, second)]
    for search in searches:
        search.start()
    for search in searches:
        search.join()
    assert blas.threads == 4
    with exact._blas_threads(2):
        assert blas.threads == 4

"""Threads: order is kept, nothing runs far ahead, errors and leaving early stop the rest."""

import threading

import pytest

from aitom_ssl.simulation.threads import in_threads


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(in_threads(lambda n: n * n, range(50), workers)) == [n * n for n in range(50)]
    assert list(in_threads(str, [], workers)) == []


def test_work_is_shared_by_threads():
    both = threading.Barrier(2, timeout=10)
    assert list(in_threads(lambda n: both.wait() >= 0, range(4), 2)) == [True] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_leaving_early_leaves_the_rest(workers):
    begun = []
    results = in_threads(begun.append, range(1000), workers)
    next(results)
    results.close()
    assert len(begun) < 20


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_the_callers(workers):
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 / (n - 5), range(1000), workers))

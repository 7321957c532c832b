"""The queue against a list."""

import numpy as np
import pytest

from aitom_ssl.ssl.queue import EmbeddingQueue


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 12])
@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_keeps_the_newest_rows_round_its_end(batch, shape):
    queue = EmbeddingQueue(7, shape)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(6):
        rows = rng.standard_normal((batch, *shape)).astype(np.float32)
        queue.add(rows)
        seen.extend(rows)
        pointer, filled = int(queue.pointer.value), int(queue.filled.value)
        assert (pointer, filled) == (len(seen) % 7, min(len(seen), 7))
        assert float(queue.fill()) == pytest.approx(filled / 7)
        assert np.asarray(queue.valid()).sum() == filled
        oldest_first = [(pointer - filled + i) % 7 for i in range(filled)]
        np.testing.assert_array_equal(queue.rows.numpy()[oldest_first], seen[-7:])


def test_nothing_happens_unless_it_is_time():
    queue = EmbeddingQueue(4, (2,))
    queue.add(np.ones((3, 2), np.float32), when=np.array(False))
    assert not queue.rows.numpy().any()
    assert (int(queue.pointer.value), int(queue.filled.value)) == (0, 0)
    queue.add(np.ones((3, 2), np.float32), when=np.array(True))
    assert int(queue.filled.value) == 3


def test_its_state_takes_no_gradient():
    assert not EmbeddingQueue(4, (2,)).trainable_variables

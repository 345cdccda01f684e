import pytest
import torch

from interpedia_engine.errors import OutOfRange
from interpedia_engine.masking import keep_mask, median_norm, norm_mask
from interpedia_engine.threads import configure_threads

TOKENS = torch.tensor([[1, 5, 6, 1], [1, 7, 0, 0]])


def test_nothing_asked_keeps_all():
    assert keep_mask(TOKENS).all()


def test_ids_positions_and_bos():
    assert keep_mask(TOKENS, ignore_ids={1, 0}).tolist() == [
        [False, True, True, False],
        [False, True, False, False],
    ]
    assert keep_mask(TOKENS, prepend_bos=True).tolist() == [[False, True, True, True]] * 2
    assert keep_mask(TOKENS, ignore_positions=[3]).tolist() == [[True, True, True, False]] * 2
    assert keep_mask(TOKENS, ignore_positions=[9]).all()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert keep_mask(TOKENS, attention_mask=mask).tolist() == mask.bool().tolist()


def test_a_bos_in_the_middle_counts_unless_its_id_is_ignored():
    assert keep_mask(TOKENS, prepend_bos=True)[0, 3]
    assert not keep_mask(TOKENS, prepend_bos=True, ignore_ids=[1])[0, 3]


def test_position_minus_one_is_not_the_last():
    with pytest.raises(OutOfRange, match="ignore_positions: positions count from 0, -1 is negative"):
        keep_mask(TOKENS, ignore_positions=[-1])


def test_norms():
    x = torch.tensor([[[3.0, 4.0], [300.0, 400.0], [0.0, 1.0]]])
    assert norm_mask(x, limit=5.0).tolist() == [[True, False, True]]
    assert median_norm(x, torch.tensor([[True, False, True]])) == 1.0  # torch takes the lower of two
    with pytest.raises(OutOfRange, match="keep"):
        median_norm(x, torch.zeros(1, 3, dtype=torch.bool))


def test_threads():
    before = torch.get_num_threads()
    configure_threads(2)
    assert torch.get_num_threads() == 2
    configure_threads(before)
    with pytest.raises(OutOfRange, match="threads"):
        configure_threads(0)

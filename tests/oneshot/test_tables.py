"""Tables 1 to 3: rows, columns and cells; runs of one variant averaged."""

import math

from run_results import result

from aitom_ssl.oneshot.tables import accuracy_rows, dice_rows, tables_text, variant_of


def test_variants_by_name():
    names = [
        variant_of({"filters": 2, "skips": False, "fusion": fusion, "decoder": decoder})
        for fusion in ("add", "max", "none")
        for decoder in (True, False)
    ]
    assert names == ["DuSE, decoder", "DuSE", "DuSE (max), decoder", "DuSE (max)", "decoder", "plain"]
    skips = {"filters": 2, "skips": True, "fusion": "none"}
    assert [variant_of({**skips, "decoder": decoder}) for decoder in (True, False)] == ["decoder (skips)", "plain"]


def test_accuracy_table():
    results = [result(), result("s", variant="plain", accuracy=0.7, dice=None), result("t", data="d2", accuracy=0.6)]
    assert accuracy_rows(results, (2, 4)) == [
        ["data", "way", "DuSE, decoder", "plain", "chance"],
        ["d1", "2", "0.900 ± 0.010", "0.700 ± 0.010", "0.500"],
        ["d2", "2", "0.600 ± 0.010", "-", "0.500"],
    ]


def test_runs_of_one_variant_are_averaged():
    rows = accuracy_rows([result("r", accuracy=0.8), result("s", accuracy=0.9)], (2,))
    assert rows[1][2] == f"0.850 ± {math.sqrt(0.005):.3f}"


def test_dice_table_with_and_without_refining():
    results = [result(refined=0.95), result("s", variant="plain", dice=None), result("t", variant="decoder", dice=0.5)]
    assert dice_rows(results, "d1") == [
        ["class", "DuSE, decoder", "DuSE, decoder, CRF", "decoder", "decoder, CRF"],
        ["e", "0.800 ± 0.020", "0.950 ± 0.020", "0.500 ± 0.020", "-"],
        ["f", "0.900 ± 0.020", "0.950 ± 0.020", "0.600 ± 0.020", "-"],
        ["all samples", "0.850 ± 0.010", "0.950 ± 0.010", "0.550 ± 0.010", "-"],
    ]
    assert dice_rows([result()], "d1")[0] == ["class", "DuSE, decoder"]
    text = tables_text(results, (2,))
    assert "accuracy on unseen classes" in text and "Dice of the masks, d1" in text

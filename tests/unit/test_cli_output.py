import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from penchant.cli.adapters import _figures
from penchant.cli.mix import _show
from penchant.cli.output import drift_words, print_details, print_table
from penchant.v1.admin_service_pb2 import Mix
from penchant.v1.interest_service_pb2 import Drift


def test_drift_is_told_without_the_number_that_does_not_decide_it() -> None:
    since = Timestamp()
    since.FromJsonString("2026-03-04T05:06:07Z")
    assert drift_words(Drift(magnitude=0.41, enough_evidence=True)) == "drift: none"
    found = Drift(magnitude=0.18, enough_evidence=True, detected=True, since=since)
    assert drift_words(found) == "drift: yes, since 2026-03-04 05:06"
    assert "too few" in drift_words(Drift(magnitude=0.41))


def test_figures_of_an_adapter_are_its_gain_or_sorted() -> None:
    gained = {"recall@50": 0.2, "recall@50 gained": 0.053, "ndcg@10": 0.1}
    assert _figures(gained) == "recall@50 gained +0.053"
    whole = gained | {"recall@50 gained, high": 0.0861, "recall@50 gained, low": 0.019}
    assert _figures(whole) == "recall@50 gained +0.053 (+0.019 … +0.086)"
    assert _figures({"b": 0.25, "a": 2}) == "a 2  b 0.25"


@pytest.mark.parametrize(
    ("quality", "live", "said"),
    [
        (0.5, True, "is live"),
        (0.3, True, "is live, though it ranked the latest days worse: so few that it may be chance"),
        (0.3, False, "ranked the latest days worse"),
        (0.5, False, "another was chosen meanwhile"),
    ],
)
def test_why_a_mix_is_not_put_to_use_is_told(
    quality: float, live: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _show(Mix(mix_id="m", quality=quality, quality_before=0.4, live=live, weights={"new": 1.0}))
    assert said in capsys.readouterr().out


def test_nothing_is_cut_or_wrapped_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    item_id, text = "i" * 256, "a word " * 300
    print_table(("item", "title", "score"), [(item_id, text, 0.5), ("short", "", 0.25)], empty="")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["item", "title", "score"],
        [item_id, *text.split(), "0.500"],
        ["short", "0.250"],
    ]
    print_details([("because of", text)])
    assert capsys.readouterr().out == f"     because of  {text}\n"

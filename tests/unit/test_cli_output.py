from google.protobuf.timestamp_pb2 import Timestamp

from penchant.cli.output import drift_words
from penchant.v1.interest_service_pb2 import Drift


def test_drift_is_told_without_the_number_that_does_not_decide_it() -> None:
    since = Timestamp()
    since.FromJsonString("2026-03-04T05:06:07Z")
    assert drift_words(Drift(magnitude=0.41, enough_evidence=True)) == "drift: none"
    found = Drift(magnitude=0.18, enough_evidence=True, detected=True, since=since)
    assert drift_words(found) == "drift: yes, since 2026-03-04 05:06"
    assert "too few" in drift_words(Drift(magnitude=0.41))

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from penchant import (
    InvalidInputError,
    Item,
    OverloadedError,
    PenchantError,
    Post,
    Signal,
    UnavailableError,
    UpsertResult,
)
from penchant._bulk import (
    Batch,
    Batcher,
    Limits,
    capture_request,
    capture_results,
    item_results,
    overload_pause,
    upsert_request,
    with_id,
)
from penchant.v1.admin_service_pb2 import GetServerInfoResponse
from penchant.v1.catalog_service_pb2 import UpsertItemsResponse
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    BatchCaptureResponse,
    CaptureResponse,
    ElementError,
)

LIMITS = Limits(max_elements=3, max_bytes=1000)


def signals(count: int, text: str = "") -> list[Signal]:
    return [Signal(id=str(i), user_id="mei", post=Post(text=text)) for i in range(count)]


def busy(seconds: int = 2) -> status_pb2.Status:
    status = status_pb2.Status(code=8, message="busy")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    return status


def refusal(field: str) -> status_pb2.Status:
    status = status_pb2.Status(code=3, message=f"{field}: must not be empty")
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="must not be empty")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def gather(elements: list[Signal], limits: Limits) -> list[list[str]]:
    batcher: Batcher[Signal] = Batcher(limits, capture_request)
    batches = [batch for element in elements if (batch := batcher.add(element))]
    if last := batcher.rest():
        batches.append(last)
    return [[signal.id for signal in batch.elements] for batch in batches]


def answer(batch: Batch[Signal], failures: dict[int, status_pb2.Status]) -> float:
    """Answer the batch as the server does: failures by their index in the request."""
    request = batch.request()
    assert isinstance(request, BatchCaptureRequest)
    results = [
        CaptureResponse() if i in failures else CaptureResponse(signal_id=signal.id)
        for i, signal in enumerate(request.signals)
    ]
    errors = [ElementError(index=i, status=status) for i, status in failures.items()]
    return batch.take(BatchCaptureResponse(results=results, errors=errors))


def test_batches_hold_what_the_server_takes_at_once() -> None:
    assert gather(signals(7), LIMITS) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert gather([], LIMITS) == []


def test_batches_stay_under_the_servers_bytes() -> None:
    assert gather(signals(5, "x" * 400), LIMITS) == [["0", "1"], ["2", "3"], ["4"]]
    for size in range(470, 500):  # around half of what a call takes
        batcher: Batcher[Signal] = Batcher(LIMITS, capture_request)
        batches = [batcher.add(signal) for signal in signals(2, "x" * size)]
        batch = batches[1] or batcher.rest()
        assert batch is not None
        assert batch.request().ByteSize() <= LIMITS.max_bytes


def test_limits_come_from_the_server_where_it_tells_them() -> None:
    assert Limits.of(GetServerInfoResponse(max_batch_size=7, max_message_bytes=9)) == Limits(7, 9)
    assert Limits.of(GetServerInfoResponse()) == Limits()


def test_an_element_too_large_for_any_call_is_refused_here_and_holds_up_no_other() -> None:
    batch = Batch([*signals(1), *signals(1, "x" * 2000)], LIMITS, capture_request)
    answer(batch, {})
    assert batch.done()
    taken, refused = capture_results(batch)
    assert taken.response == CaptureResponse(signal_id="0")
    assert isinstance(refused.error, InvalidInputError)
    assert "1000" in refused.error.message


def test_only_what_was_turned_away_is_sent_again_and_results_keep_their_order() -> None:
    batch = Batch(signals(4), LIMITS, capture_request)
    pause = answer(batch, {3: busy(3), 2: refusal("signals[2].user_id"), 1: busy()})
    assert 3 <= pause <= 3.75
    assert not batch.done()
    request = batch.request()
    assert isinstance(request, BatchCaptureRequest)
    assert [signal.id for signal in request.signals] == ["1", "3"]
    answer(batch, {0: busy()})
    answer(batch, {0: refusal("signals[0].user_id")})
    assert batch.done()
    results = list(capture_results(batch))
    assert [result.signal.id for result in results] == ["0", "1", "2", "3"]
    assert [result.response.signal_id if result.response else None for result in results] == [
        "0",
        None,
        None,
        "3",
    ]
    assert [isinstance(result.error, InvalidInputError) for result in results] == [False, True, True, False]


def test_field_names_speak_of_the_element_not_of_its_place_in_one_call() -> None:
    batch = Batch(signals(1), LIMITS, capture_request)
    answer(batch, {0: refusal("signals[0].post.text")})
    error = next(capture_results(batch)).error
    assert isinstance(error, InvalidInputError)
    assert error.violations[0].field == "post.text"
    assert error.message == "post.text: must not be empty"


def test_without_word_from_the_server_pauses_grow_to_a_limit() -> None:
    batch = Batch(signals(1), LIMITS, capture_request)
    pauses = [batch.refused(UnavailableError("gone")) for _ in range(12)]
    assert pauses[0] < 0.2 < pauses[3]
    assert 5 <= pauses[-1] <= 6.25


def test_a_call_has_more_time_the_more_it_carries() -> None:
    batch = Batch(signals(4), LIMITS, capture_request)
    assert batch.timeout(10.0) == 11.0
    answer(batch, {0: busy(), 3: busy()})
    assert batch.timeout(10.0) == 10.5


def test_what_a_server_could_not_take_is_sent_again_soon_once_it_took_others() -> None:
    away = status_pb2.Status(code=14, message="no room on the disk")
    batch = Batch(signals(3), LIMITS, capture_request)
    assert max(answer(batch, dict.fromkeys(range(3), away)) for _ in range(6)) > 3
    assert answer(batch, {1: away}) < 0.2
    request = batch.request()
    assert isinstance(request, BatchCaptureRequest)
    assert [signal.id for signal in request.signals] == ["1"]


def test_a_minute_without_any_progress_is_counted_from_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("penchant._bulk.time.monotonic", lambda: now)
    batch = Batch(signals(2), LIMITS, capture_request)
    now += 50
    answer(batch, {0: busy()})
    now += 50
    answer(batch, {0: busy()})
    assert not batch.done()
    batch.refused(UnavailableError("gone"))
    now += 11
    with pytest.raises(UnavailableError):
        batch.refused(UnavailableError("gone"))


def test_elements_that_nobody_takes_for_a_minute_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("penchant._bulk.time.monotonic", lambda: now)
    batch = Batch(signals(2), LIMITS, capture_request)
    answer(batch, {0: busy(), 1: busy()})
    assert not batch.done()
    now += 61
    answer(batch, {0: busy(), 1: busy()})
    assert batch.done()
    assert all(isinstance(result.error, OverloadedError) for result in capture_results(batch))


def test_a_call_that_will_not_pass_later_ends_the_batch() -> None:
    batch = Batch(signals(1), LIMITS, capture_request)
    for error in (InvalidInputError("wrong"), OverloadedError("message too large")):
        with pytest.raises(PenchantError) as caught:
            batch.refused(error)
        assert caught.value is error


def test_a_single_call_waits_for_an_overload_only_within_its_deadline() -> None:
    overload = OverloadedError("busy")
    overload.retry_after = 2.0
    assert overload_pause(overload, seconds_left=5.0) == 2.0
    for error, left in (
        (overload, 3.0),
        (OverloadedError("too large"), 9.0),
        (UnavailableError("gone"), 9.0),
    ):
        with pytest.raises(PenchantError) as caught:
            overload_pause(error, left)
        assert caught.value is error


def test_refused_items_are_counted_over_all_batches() -> None:
    result = UpsertResult()
    for failing in (1, 0):
        batch = Batch([Item(id="a"), Item(id="b")], LIMITS, upsert_request)
        batch.take(UpsertItemsResponse(errors=[ElementError(index=failing, status=refusal("items[0].title"))]))
        for one in item_results(batch):
            result.add(one)
    assert result.upserted_count == 2
    assert [(error.index, error.item_id) for error in result.errors] == [(1, "b"), (2, "a")]


def test_with_id_copies_only_what_has_no_id() -> None:
    named, nameless = Signal(id="a"), Signal(user_id="mei")
    assert with_id(named) is named
    copy = with_id(nameless)
    assert copy.id
    assert copy.user_id == "mei"
    assert nameless.id == ""

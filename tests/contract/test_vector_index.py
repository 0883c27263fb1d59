from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import ArrayLike

from penchant_pipelines.index import (
    ExactIndex,
    ExactStore,
    Generation,
    Hit,
    IndexSettings,
    IndexStore,
    IndexUnavailable,
    VectorIndex,
    Vectors,
    open_index_store,
)
from penchant_pipelines.index import chroma as chroma_module

DIMENSIONS = 16
SERVER_COMMAND = "import sys; from chromadb.cli.cli import app; sys.exit(app())"


def unit(rows: ArrayLike) -> Vectors:
    matrix: Vectors = np.asarray(rows, np.float32)
    normalised: Vectors = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return normalised


def random_rows(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))


def clustered_rows(count: int, dimensions: int, clusters: int, spread: float, seed: int) -> Vectors:
    generator = np.random.default_rng(seed)
    centres = unit(generator.standard_normal((clusters, dimensions)))
    noise = generator.standard_normal((count, dimensions)) / np.sqrt(dimensions)
    return unit(centres[generator.integers(0, clusters, count)] + spread * noise)


def axis(index: int) -> Vectors:
    return np.eye(DIMENSIONS, dtype=np.float32)[[index]]


def towards(first: int, second: int, cosine: float) -> Vectors:
    return unit(cosine * axis(first) + np.sqrt(1 - cosine**2) * axis(second))


def names_of(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def held(index: VectorIndex, dimensions: int = DIMENSIONS) -> set[str]:
    """Ids of all vectors that an index holds."""
    (hits,) = index.query(np.eye(1, dimensions, dtype=np.float32), index.count() + 1)
    assert len(hits) == index.count()
    return set(names_of(hits))


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("chroma-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["run", "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{url}/api/v2/heartbeat", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                assert server.poll() is None, "the server has stopped"
                assert time.monotonic() < deadline, "the server has not started"
                time.sleep(0.05)
        yield url
        server.terminate()


@pytest.fixture(params=["exact", "embedded", "server"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(kind: str, request: pytest.FixtureRequest) -> IndexSettings:
    return IndexSettings(url=request.getfixturevalue("server_url") if kind == "server" else "")


@pytest.fixture
def store(kind: str, settings: IndexSettings, tmp_path: Path) -> Iterator[IndexStore]:
    opened = ExactStore() if kind == "exact" else open_index_store(settings, tmp_path / "index")
    yield opened
    try:
        for name in opened.names():
            opened.drop(name)
    except IndexUnavailable:
        assert kind in ("exact", "server"), "an embedded store can be emptied when it is closed"
    opened.close()


@pytest.fixture
def generation(store: IndexStore) -> Generation:
    return store.open("first", DIMENSIONS)


@pytest.fixture
def index(generation: Generation) -> VectorIndex:
    return generation.items


# one collection


def test_an_empty_index_finds_nothing(index: VectorIndex) -> None:
    assert index.query(random_rows(2), 5) == [[], []]
    assert held(index) == set()
    assert index.count() == 0
    index.delete(["nobody", ""])
    index.delete([])
    index.upsert([], np.empty((0, DIMENSIONS), np.float32))
    assert index.count() == 0


def test_hits_carry_the_cosine_best_first(index: VectorIndex) -> None:
    index.upsert(
        ["far", "near", "opposite", "self"],
        np.concatenate([towards(0, 1, 0.1), towards(0, 1, 0.9), -axis(0), axis(0)]),
    )
    (hits,) = index.query(axis(0), 4)
    assert names_of(hits) == ["self", "near", "far", "opposite"]
    assert [hit.similarity for hit in hits] == pytest.approx([1.0, 0.9, 0.1, -1.0], abs=1e-3)
    assert all(-1 <= hit.similarity <= 1 for hit in hits)
    assert [names_of(h) for h in index.query(np.concatenate([-axis(0), towards(0, 1, 0.9)]), 1)] == [
        ["opposite"],
        ["near"],
    ]


def test_no_query_no_answer(index: VectorIndex) -> None:
    index.upsert(["a"], axis(0))
    assert index.query(np.empty((0, DIMENSIONS), np.float32), 3) == []


def test_ties_go_by_id(index: VectorIndex) -> None:
    ids = [f"id-{n:02}" for n in range(12)]
    shuffled = list(np.random.default_rng(3).permutation(ids))
    index.upsert(shuffled, np.repeat(random_rows(1), 12, axis=0))
    (hits,) = index.query(random_rows(1), 12)
    assert names_of(hits) == ids


def test_many_equal_vectors_hide_no_others(index: VectorIndex) -> None:
    index.upsert([f"equal-{n}" for n in range(1500)], np.repeat(random_rows(1), 1500, axis=0))
    others = [f"other-{n}" for n in range(200)]
    rows = random_rows(200, seed=1)
    index.upsert(others, rows)
    found = [names_of(hits)[0] for hits in index.query(rows, 1)]
    assert sum(map(str.__eq__, found, others)) > 190


def test_a_limit_above_the_count_gives_all(index: VectorIndex) -> None:
    index.upsert([str(n) for n in range(30)], random_rows(30))
    index.delete([str(n) for n in range(10)])
    (hits,) = index.query(random_rows(1, seed=9), 1000)
    assert sorted(names_of(hits), key=int) == [str(n) for n in range(10, 30)]


def test_mostly_deleted_it_still_finds_what_is_left(index: VectorIndex) -> None:
    rows = random_rows(1500)
    index.upsert([str(n) for n in range(1500)], rows)
    index.delete([str(n) for n in range(1450)])
    (hits,) = index.query(rows[:1], 1000)
    assert sorted(names_of(hits), key=int) == [str(n) for n in range(1450, 1500)]


def test_a_limit_below_one_is_refused(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="limit"):
        index.query(axis(0), 0)


def test_upsert_replaces(index: VectorIndex) -> None:
    index.upsert(["moving", "still"], np.concatenate([axis(0), axis(1)]))
    index.upsert(["moving"], axis(2))
    assert index.count() == 2
    assert index.query(axis(2), 1) == [[Hit("moving", 1.0)]]
    assert index.query(axis(0), 2)[0][0].similarity == pytest.approx(0, abs=1e-3)


def test_files_of_an_embedded_index_go_once_a_server_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    embedded = open_index_store(IndexSettings(), folder)
    embedded.open("g-1", DIMENSIONS).interests.upsert(["7:i-1"], axis(0))
    embedded.close()
    assert list(folder.iterdir())
    open_index_store(IndexSettings(url="http://127.0.0.1:9"), folder)
    assert not list(folder.iterdir())


def test_the_last_of_a_repeated_id_counts(index: VectorIndex) -> None:
    index.upsert(["twice", "once", "twice"], np.concatenate([axis(0), axis(1), axis(2)]))
    assert held(index) == {"twice", "once"}
    assert index.query(axis(2), 1) == [[Hit("twice", 1.0)]]
    index.delete(["twice", "twice", "never"])
    assert held(index) == {"once"}


def test_deleted_is_gone_and_may_come_back(index: VectorIndex) -> None:
    index.upsert(["a", "b", "c"], np.concatenate([axis(0), axis(1), axis(2)]))
    index.delete(["a", "c"])
    assert held(index) == {"b"}
    assert names_of(index.query(axis(0), 5)[0]) == ["b"]
    index.upsert(["a"], axis(3))
    assert index.query(axis(3), 1) == [[Hit("a", 1.0)]]
    assert index.count() == 2


def test_ids_are_any_text(index: VectorIndex) -> None:
    ids = [
        "北京/烤鸭",
        "naïve é",
        "e\u0301",
        "emoji 🎸",
        "a b\tc\n",
        "'; DROP TABLE x; --",
        "%2F..\\",
        "z" * 2000,
    ]
    index.upsert(ids, np.eye(DIMENSIONS, dtype=np.float32)[: len(ids)])
    assert held(index) == set(ids)
    for position, id_ in enumerate(ids):
        assert index.query(axis(position), 1) == [[Hit(id_, 1.0)]]
    index.delete(ids[:3])
    assert held(index) == set(ids[3:])


def test_large_calls_are_cut_into_batches(index: VectorIndex) -> None:
    rows = random_rows(700)
    ids = [f"item-{n}" for n in range(700)]
    index.upsert(ids, rows)
    assert held(index) == set(ids)
    assert index.count() == 700
    assert [names_of(hits)[0] for hits in index.query(rows[::50], 1)] == ids[::50]
    index.delete(ids[100:])
    assert held(index) == set(ids[:100])


def bad_vectors() -> dict[str, Vectors]:
    nan, infinite = axis(0).copy(), axis(0).copy()
    nan[0, 3], infinite[0, 3] = np.nan, np.inf
    return {
        "nan": nan,
        "infinite": infinite,
        "too short": unit(np.ones((1, DIMENSIONS - 1))),
        "too long": unit(np.ones((1, DIMENSIONS + 1))),
        "one row without its axis": axis(0)[0],
        "zero": 0 * axis(0),
        "not a unit": 2 * axis(0),
    }


@pytest.mark.parametrize("bad", bad_vectors().values(), ids=bad_vectors().keys())
def test_bad_vectors_are_refused(index: VectorIndex, bad: Vectors) -> None:
    index.upsert(["good"], axis(1))
    with pytest.raises(ValueError, match="vectors"):
        index.upsert(["bad"], bad)
    with pytest.raises(ValueError, match="vectors"):
        index.query(bad, 1)
    assert held(index) == {"good"}


def test_bad_ids_are_refused(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="2 ids for 1 vectors"):
        index.upsert(["a", "b"], axis(0))
    with pytest.raises(ValueError, match="empty"):
        index.upsert([""], axis(0))
    assert index.count() == 0


def test_many_changes_end_like_a_dictionary(index: VectorIndex) -> None:
    generator = np.random.default_rng(5)
    model: dict[str, Vectors] = {}
    rows = random_rows(600, seed=6)
    used = 0
    for _ in range(30):
        ids = [f"k{n}" for n in generator.integers(0, 60, generator.integers(1, 20))]
        if generator.random() < 0.4:
            index.delete(ids)
            for id_ in ids:
                model.pop(id_, None)
        else:
            part = rows[used : used + len(ids)]
            used += len(ids)
            index.upsert(ids, part)
            model.update(zip(ids, part, strict=True))
    assert held(index) == set(model)
    oracle = ExactIndex(DIMENSIONS)
    oracle.upsert(list(model), np.stack(list(model.values())))
    queries = random_rows(10, seed=7)
    for got, expected in zip(index.query(queries, 100), oracle.query(queries, 100), strict=True):
        assert {h.id: h.similarity for h in got} == pytest.approx({h.id: h.similarity for h in expected}, abs=1e-3)


def test_threads_query_while_one_writes(index: VectorIndex) -> None:
    rows = random_rows(300)
    index.upsert([f"old-{n}" for n in range(100)], rows[:100])
    done = threading.Event()
    failures: list[BaseException] = []
    answered = 0

    def read() -> None:
        nonlocal answered
        try:
            while not done.is_set():
                for position, hits in enumerate(index.query(rows[:5], 3)):
                    assert names_of(hits)[0] == f"old-{position}"
                assert index.count() >= 100
                answered += 1
        except BaseException as failure:
            failures.append(failure)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for start in range(100, 300, 20):
            index.upsert([f"new-{n}" for n in range(start, start + 20)], rows[start : start + 20])
        index.delete([f"new-{n}" for n in range(100, 200)])
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert answered > 0
    assert index.count() == 200


def test_threads_writing_lose_nothing(index: VectorIndex) -> None:
    rows = random_rows(240)

    def write(thread: int) -> None:
        for start in range(thread * 60, thread * 60 + 60, 15):
            index.upsert([str(n) for n in range(start, start + 15)], rows[start : start + 15])

    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert held(index) == {str(n) for n in range(240)}
    assert [names_of(hits)[0] for hits in index.query(rows, 1)] == [str(n) for n in range(240)]


# generations


def test_items_and_interests_are_apart(generation: Generation) -> None:
    generation.items.upsert(["item"], axis(0))
    generation.interests.upsert(["interest"], axis(0))
    assert held(generation.items) == {"item"}
    assert held(generation.interests) == {"interest"}
    assert generation.name == "first"


def test_generations_are_apart(store: IndexStore) -> None:
    first, second = store.open("g-1", DIMENSIONS), store.open("g_2", 8)
    first.items.upsert(["a"], axis(0))
    second.items.upsert(["b"], np.eye(1, 8, dtype=np.float32))
    assert store.names() == ["g-1", "g_2"]
    store.drop("g-1")
    assert store.names() == ["g_2"]
    assert held(second.items, 8) == {"b"}


def test_open_twice_is_the_same(store: IndexStore) -> None:
    first = store.open("g", DIMENSIONS)
    first.items.upsert(["a"], axis(0))
    assert store.open("g", DIMENSIONS) is first


def test_other_dimensions_are_refused_and_harm_nothing(store: IndexStore) -> None:
    index = store.open("g", DIMENSIONS).items
    index.upsert(["a"], axis(0))
    with pytest.raises(IndexUnavailable, match="16 dimensions"):
        store.open("g", 8)
    assert held(index) == {"a"}


def test_dropped_is_empty_when_opened_again(store: IndexStore) -> None:
    store.open("g", DIMENSIONS).items.upsert(["a"], axis(0))
    store.drop("g")
    store.drop("never-there")
    assert store.names() == []
    again = store.open("g", 8)
    assert held(again.items, 8) == set()
    again.items.upsert(["b"], np.eye(1, 8, dtype=np.float32))
    assert again.items.count() == 1


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "-x", "中文", "a" * 101, "a b"])
def test_names_that_are_no_names(store: IndexStore, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        store.open(name, DIMENSIONS)
    with pytest.raises(ValueError, match="name"):
        store.drop(name)


def test_a_closed_store_opens_nothing(store: IndexStore) -> None:
    store.close()
    with pytest.raises(IndexUnavailable, match="closed"):
        store.open("g", DIMENSIONS)


# what only Chroma can do, and get wrong


chroma_only = pytest.mark.parametrize("kind", ["embedded", "server"])


@chroma_only
def test_reopened_it_is_all_there(store: IndexStore, settings: IndexSettings, tmp_path: Path) -> None:
    rows = random_rows(1300)
    ids = [f"项-{n}" for n in range(1300)]
    generation = store.open("g", DIMENSIONS)
    generation.items.upsert(ids, rows)
    generation.items.delete(ids[:100])
    generation.items.upsert(ids[100:110], rows[:10])
    generation.interests.upsert(["i"], axis(0))
    store.close()
    with pytest.raises(IndexUnavailable, match="closed"):
        generation.items.query(rows[:1], 1)

    again = open_index_store(settings, tmp_path / "index")
    try:
        assert again.names() == ["g"]
        reopened = again.open("g", DIMENSIONS)
        assert held(reopened.items) == set(ids[100:])
        assert [names_of(h)[0] for h in reopened.items.query(rows[:10], 1)] == ids[100:110]
        assert [names_of(h)[0] for h in reopened.items.query(rows[110::100], 1)] == ids[110::100]
        assert held(reopened.interests) == {"i"}
        again.drop("g")
        assert again.names() == []
    finally:
        again.close()


@chroma_only
def test_dropped_under_running_queries(store: IndexStore) -> None:
    generation = store.open("g", DIMENSIONS)
    rows = random_rows(400)
    generation.items.upsert([str(n) for n in range(400)], rows)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            while True:
                generation.items.query(rows[:20], 10)
        except BaseException as failure:
            ended.append(failure)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    store.drop("g")
    for thread in threads:
        thread.join(10)
    assert [type(failure) for failure in ended] == [IndexUnavailable] * 3
    for call in (generation.items.count, lambda: generation.items.query(rows[:1], 1)):
        with pytest.raises(IndexUnavailable):
            call()
    with pytest.raises(IndexUnavailable):
        generation.items.upsert(["a"], axis(0))
    with pytest.raises(IndexUnavailable):
        generation.items.delete(["1"])


def open_files(folder: Path) -> list[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see open files")
def test_a_drop_gives_all_bytes_and_handles_back(tmp_path: Path) -> None:
    store = open_index_store(IndexSettings(), tmp_path / "index")
    generation = store.open("g", DIMENSIONS)
    generation.items.upsert([str(n) for n in range(1500)], random_rows(1500))
    generation.items.query(axis(0), 5)
    assert open_files(tmp_path) != []
    store.drop("g")
    assert list((tmp_path / "index").iterdir()) == []
    patience = time.monotonic() + 10  # Chroma's own threads let go of their files a moment later
    while open_files(tmp_path) and time.monotonic() < patience:
        time.sleep(0.05)
    assert open_files(tmp_path) == []
    store.close()


FREED_MEMORY = """
import ctypes, sys, threading
from pathlib import Path
import numpy as np
from penchant_pipelines.index import IndexSettings, open_index_store

secret, libc = b"Wolpertinger", ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]


def use_and_free():
    for size in [16_000_000, *[30_000, 60_000, 120_000, 200_000, 400_000, 800_000, 1_700_000, 3_400_000] * 6]:
        blocks = [libc.malloc(size) for _ in range(2)]
        libc.malloc(64)  # stands between them and the top of the heap
        for block in blocks:
            ctypes.memmove(block, secret * (size // 12), size // 12 * 12)
        for block in blocks:
            libc.free(block)


folder = Path(sys.argv[1])
store = open_index_store(IndexSettings(), folder)
rows = np.eye(50, 384, dtype=np.float32)
store.open("before", 384).items.upsert(["0"], rows[:1])
threads = [threading.Thread(target=use_and_free) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
use_and_free()
store.open("after", 384).items.upsert([str(n) for n in range(50)], rows)
store.close()
print(sum(file.read_bytes().count(secret) for file in folder.rglob("*") if file.is_file()))
"""


def test_freed_memory_does_not_reach_the_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FREED_MEMORY, str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def sealed_generation(folder: Path, count: int = 2500) -> None:
    store = open_index_store(IndexSettings(), folder)
    store.open("g", DIMENSIONS).items.upsert([str(n) for n in range(count)], random_rows(count))
    store.close()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garble(file: Path) -> None:
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    content[::3] ^= 0x5A
    file.write_bytes(content.tobytes())


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact") / "index"
    sealed_generation(folder)
    return folder


@pytest.mark.parametrize("damage", [cut, empty, garble, Path.unlink])
@pytest.mark.parametrize(
    "file", ["chroma.sqlite3", "header.bin", "data_level0.bin", "link_lists.bin", "index_metadata.pickle"]
)
def test_damage_makes_it_unavailable_and_a_drop_heals(
    intact: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(intact, folder)
    damage(next((folder / "g").rglob(file)))
    store = open_index_store(IndexSettings(), folder)
    with pytest.raises(IndexUnavailable):
        store.open("g", DIMENSIONS)
    assert store.names() == ["g"]
    store.drop("g")
    index = store.open("g", DIMENSIONS).items
    index.upsert(["a"], axis(0))
    assert index.query(axis(0), 2) == [[Hit("a", 1.0)]]
    store.close()


def test_one_that_cant_be_sealed_keeps_no_other_open(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    store = open_index_store(IndexSettings(), folder)
    for name in ("a", "b", "c"):
        store.open(name, DIMENSIONS).items.upsert([name], axis(0))
    (folder / "b" / chroma_module.SEAL).mkdir()
    with pytest.raises(IndexUnavailable, match="can't be closed"):
        store.close()
    store = open_index_store(IndexSettings(), folder)
    for name in ("a", "c"):
        assert held(store.open(name, DIMENSIONS).items) == {name}
    with pytest.raises(IndexUnavailable):
        store.open("b", DIMENSIONS)
    store.close()


@pytest.mark.parametrize("file", ["chroma.sqlite3", "index_metadata.pickle"])
def test_files_that_chroma_refuses_make_it_unavailable(intact: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "index"
    shutil.copytree(intact, folder)
    garble(next((folder / "g").rglob(file)))
    chroma_module.seal(folder / "g")  # as if it had been damaged before it was closed
    store = open_index_store(IndexSettings(), folder)
    with pytest.raises(IndexUnavailable) as caught:
        store.open("g", DIMENSIONS)
    assert caught.value.__cause__ is not None
    store.drop("g")
    store.open("g", DIMENSIONS).items.upsert(["a"], axis(0))
    store.close()


def test_a_killed_process_leaves_no_index_that_is_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    program = f"""
import pathlib, numpy
from penchant_pipelines.index import IndexSettings, open_index_store
index = open_index_store(IndexSettings(), pathlib.Path({str(folder)!r})).open("g", 16).items
print("open", flush=True)
while True:
    index.upsert([str(n) for n in range(16)], numpy.eye(16, dtype=numpy.float32))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        time.sleep(0.2)
        process.kill()
    store = open_index_store(IndexSettings(), folder)
    with pytest.raises(IndexUnavailable, match="not closed"):
        store.open("g", DIMENSIONS)
    store.drop("g")
    assert store.open("g", DIMENSIONS).items.count() == 0
    store.close()


def test_nothing_is_written_or_read_elsewhere(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (work / ".env").write_text("CHROMA_API_IMPL=chromadb.api.fastapi.FastAPI\n")
    program = """
import pathlib, socket, sys, numpy
def refuse(*_, **__):
    raise AssertionError("the network was touched")
socket.getaddrinfo = socket.socket.connect = refuse
from penchant_pipelines.index import IndexSettings, open_index_store
store = open_index_store(IndexSettings(), pathlib.Path("index"))
index = store.open("g", 16).items
index.upsert(["a"], numpy.eye(1, 16, dtype=numpy.float32))
assert len(index.query(numpy.eye(1, 16, dtype=numpy.float32), 3)[0]) == 1
store.close()
"""
    environment = os.environ | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(home.rglob("*")) == []
    assert sorted(path.name for path in work.iterdir()) == [".env", "index"]
    assert list((work / "index").iterdir()) == [work / "index" / "g"]


def test_a_server_out_of_reach_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        store = open_index_store(IndexSettings(url=f"http://127.0.0.1:{taken.getsockname()[1]}"), tmp_path)
        with pytest.raises(IndexUnavailable) as caught:
            store.open("g", DIMENSIONS)
        assert caught.value.__cause__ is not None
        with pytest.raises(IndexUnavailable):
            store.names()
        store.close()
        gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_module, "QUERY_TIMEOUT", httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are accepted, nothing is said
        store = open_index_store(IndexSettings(url=f"http://127.0.0.1:{silent.getsockname()[1]}/"), tmp_path)
        with pytest.raises(IndexUnavailable, match="Timeout"):
            store.open("g", DIMENSIONS)
        store.close()


def test_what_is_soon_answered_is_given_up_sooner_than_a_write(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_index_store(IndexSettings(url=server_url), tmp_path)
    index = store.open("hasty", DIMENSIONS).items
    with monkeypatch.context() as hurry:
        hurry.setattr(chroma_module, "QUERY_TIMEOUT", httpx.Timeout(1e-6))
        index.upsert(["a"], axis(0))
        with pytest.raises(IndexUnavailable, match="Timeout"):
            index.query(np.repeat(axis(0), 2_000, axis=0), 1)  # so many that no server answers in a millisecond
    assert index.count() == 1
    store.drop("hasty")
    store.close()


def test_only_what_goes_by_the_size_of_what_it_holds_may_last() -> None:
    """Else a server that hangs holds up a stop for as long as a write may take, more than once."""
    found = {}
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("POST", "/7/query"),
        ("POST", "/7/upsert"),
        ("DELETE", "/g-items"),
    ):
        request = httpx.Request(method, f"http://there/collections{path}")
        chroma_module.hasten(request)
        found[method, path] = "timeout" in request.extensions
    assert [key for key, hastened in found.items() if not hastened] == [("POST", "/7/upsert"), ("DELETE", "/g-items")]


def test_a_server_that_lost_a_collection_is_unavailable_until_opened_again(server_url: str, tmp_path: Path) -> None:
    settings = IndexSettings(url=server_url)
    store, other = open_index_store(settings, tmp_path), open_index_store(settings, tmp_path)
    index = store.open("lost", DIMENSIONS).items
    index.upsert(["a"], axis(0))
    other.drop("lost")
    with pytest.raises(IndexUnavailable):
        index.query(axis(0), 1)
    again = store.open("lost", DIMENSIONS).items
    assert again.query(axis(0), 1) == [[]]
    store.drop("lost")
    store.close()
    other.close()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://h:1/path", "http://"])
def test_urls_that_are_no_urls(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        IndexSettings(url=url)


@pytest.mark.slow
def test_recall_at_50_against_exact_search(tmp_path: Path) -> None:
    rows = clustered_rows(20_200, 384, clusters=60, spread=1.3, seed=1)
    corpus, queries = rows[:20_000], rows[20_000:]
    ids = [str(n) for n in range(len(corpus))]
    exact = ExactIndex(384)
    exact.upsert(ids, corpus)
    store = open_index_store(IndexSettings(batch_size=250), tmp_path / "index")
    index = store.open("g", 384).items
    index.upsert(ids, corpus)
    shared = [
        len(set(names_of(found)) & set(names_of(best))) / 50
        for found, best in zip(index.query(queries, 50), exact.query(queries, 50), strict=True)
    ]
    store.close()
    assert np.mean(shared) >= 0.97

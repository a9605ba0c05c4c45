"""The file: what is in it comes back, and no byte of it changes unseen."""

import hashlib
import json
import os
from collections import Counter

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.pipeline import make_pipeline

import skact
from skact import MaxToken, MeanPrototype
from skact.persistence import _container
from skact.persistence._container import read_file, write_file
from tests.fresh import peak_of
from tests.persistence import kept

# More of them with SKACT_FUZZ=10000.
N_FUZZED = int(os.environ.get("SKACT_FUZZ", "600"))
ABOUT = {"version": "1", "nodes": ['ä\ud800\n"\\']}
TENSORS = {
    "0": np.arange(6.0).reshape(2, 3),
    "1": np.zeros((0, 4), np.float32),
    "2": np.array([True, False, True]),
    "3": np.array(7, np.uint16),
    "4": np.array([[1.5, np.nan]], np.float16),
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a"
    write_file(path, ABOUT, TENSORS)
    content = read_file(path, with_tensors=True)
    assert content.about == {"format": 1, **ABOUT}
    assert content.n_bytes == path.stat().st_size
    assert content.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        back = content.tensors[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.tobytes() == tensor.tobytes()
        assert back.flags.writeable
    assert read_file(path, with_tensors=False) == (content.about, {}, content.n_bytes)
    with safe_open(path, "numpy") as file:  # other programs read it too
        np.testing.assert_array_equal(file.get_tensor("0"), TENSORS["0"])


def test_the_checksum_is_of_the_whole_file(tmp_path):
    path = tmp_path / "a"
    write_file(path, ABOUT, TENSORS)
    raw = path.read_bytes()
    said = json.loads(
        json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["skact"]
    )
    zeros = raw.replace(said["checksum"].encode(), b"0" * 64)
    assert hashlib.sha256(zeros).hexdigest() == said["checksum"]


def fuzzed(raw, random):
    """A file that is another one, by a flip of bits, a cut, a hole or a swap."""
    kind = random.choice(["flip", "cut", "hole", "longer", "swap"], p=[0.6, 0.1, 0.1, 0.1, 0.1])
    n = len(raw)
    at, to = sorted(random.integers(0, n, 2).tolist())
    if kind == "cut":
        return kind, raw[:at]
    if kind == "hole":
        return kind, raw[:at] + raw[to + 1 :]
    if kind == "longer":
        return kind, raw[:at] + random.bytes(1 + to - at) + raw[at:]
    changed = bytearray(raw)
    if kind == "swap":
        changed[at], changed[to] = changed[to], changed[at]
    else:
        for _ in range(random.integers(1, 4)):
            changed[random.integers(n)] ^= 1 << random.integers(8)
    return kind, bytes(changed)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Files of a pipeline and of a search, whole."""
    folder = tmp_path_factory.mktemp("lines")
    made = []
    for name, estimator, data in kept.lines():
        if name in ("pipeline", "search"):
            skact.save(estimator, folder / name)
            made.append((folder / name, kept.says(estimator, data), data))
    return made


def test_fuzzed_files_end_in_one_sentence_or_answer_the_same(lines, tmp_path):
    random = np.random.default_rng(0)
    count = Counter()
    for i in range(N_FUZZED):
        path, says, data = lines[i % len(lines)]
        raw = path.read_bytes()
        kind, changed = fuzzed(raw, random)
        (tmp_path / "a").write_bytes(changed)
        for function in (skact.load, skact.describe):
            try:
                back = function(tmp_path / "a")
            except ValueError as error:
                said = str(error)
                assert said.startswith(f"'{tmp_path / 'a'}' cannot be read: ")
                assert said.endswith(".")
                assert "\n" not in said
                assert len(said) < 500
                count[kind, "refused"] += 1
            else:
                assert changed == raw, kind
                count[kind, "the same"] += 1
                if function is skact.load:
                    for method, said in kept.says(back, data).items():
                        np.testing.assert_array_equal(said, says[method])
    print(dict(count))
    assert sum(n for (_, what), n in count.items() if what == "refused") > 1.9 * N_FUZZED


def test_without_the_checksum_numbers_would_be_wrong(tmp_path, monkeypatch):
    """The control: bits that are flipped in a tensor are seen by nothing else."""

    class Blind:
        def __init__(self, *_):
            self.said = None

        def update(self, _):
            pass

        def hexdigest(self):
            return checksum

    wide = kept.tokens(3, width=300)
    pipe = make_pipeline(MeanPrototype(), MaxToken()).fit(wide, kept.Y)
    skact.save(pipe, tmp_path / "a")
    raw = bytearray((tmp_path / "a").read_bytes())
    about = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    checksum = json.loads(about["__metadata__"]["skact"])["checksum"]
    raw[-2] ^= 1 << 6  # an exponent
    (tmp_path / "b").write_bytes(raw)
    with pytest.raises(ValueError, match="does not have its checksum, so it is damaged"):
        skact.load(tmp_path / "b")
    monkeypatch.setattr(_container.hashlib, "sha256", Blind)
    wrong = kept.says(skact.load(tmp_path / "b"), wide)["decision_function"]
    assert not np.array_equal(wrong, kept.says(pipe, wide)["decision_function"])


def header(path, change):
    """Write the file again with another header, and the checksum of it."""
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + n])
    said = json.loads(head["__metadata__"]["skact"])
    data = change(head, said) or raw[8 + n :]
    said["checksum"] = "0" * 64
    if "__metadata__" in head:
        head["__metadata__"]["skact"] = json.dumps(said)
    text = json.dumps(head).encode()
    whole = len(text).to_bytes(8, "little") + text + data
    path.write_bytes(whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1))


def entry(**changed):
    return lambda head, _: head["0"].update(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head, _: head.pop("__metadata__") and None, "it was not written by skact.save"),
        (lambda _, said: said.pop("format") and None, "it was not written by skact.save"),
        (lambda _, said: said.update(format="1"), "it was not written by skact.save"),
        (lambda _, said: said.update(format=2, version="9.1"), "format 2 of skact 9.1.* newer"),
        (lambda _, said: said.update(format=-1), "format -1, which no version of skact writes"),
        (lambda head, _: head.update({"../../etc/passwd": head.pop("0")}), "the name '../../etc/"),
        (lambda head, _: head.update({"0x": head.pop("0")}), "the name '0x', where numbers are"),
        (entry(dtype="BF16"), "tensor 0 has the number format 'BF16', which is unknown"),
        (entry(dtype="O"), "tensor 0 has the number format 'O', which is unknown"),
        (entry(dtype="F32"), r"tensor 0 of shape \[2, 3\] does not lie where it must"),
        (entry(shape=[10**6, 10**6]), "does not lie where it must"),
        (entry(shape=[10**40, 0]), "tensor 0 has an impossible shape or place"),
        (entry(shape=[-2, -3]), "tensor 0 has an impossible shape or place"),
        (entry(shape=[2.0, 3.0]), "tensor 0 has an impossible shape or place"),
        (entry(shape=[1] * 100 + [6]), "does not lie where it must"),
        (entry(shape=None), "it is damaged"),
        (entry(data_offsets=[0, 2**60]), "tensor 0 has an impossible shape or place"),
        (entry(data_offsets=[8, 56]), "does not lie where it must"),
        (lambda head, _: head.pop("2") and None, "does not lie where it must|claim"),
        (lambda head, _: head.update({"5": []}), "it is damaged"),
        (lambda head, _: b"\x07" * 61, "claim|truth values"),
    ],
)
def test_headers_that_lie_are_refused(change, message, tmp_path):
    path = tmp_path / "a"
    write_file(path, {"version": "1"}, TENSORS)
    header(path, change)
    with pytest.raises(ValueError, match=message):
        skact.load(path)


def test_a_changed_header_with_its_checksum_is_read(tmp_path):
    """The control of the test above: what it writes is refused for what was changed alone."""
    path = tmp_path / "a"
    write_file(path, {"version": "1"}, TENSORS)
    header(path, lambda _, said: said.update(more=1))
    assert read_file(path, with_tensors=True).about["more"] == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1234567",
        b"\x80\x04\x95" + b"cos\nsystem\n(S'touch owned'\ntR." * 3,
        (2**63).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{" * 100,
        (8).to_bytes(8, "little") + b"\xff" * 8,
        (200).to_bytes(8, "little") + b'{"a":' * 40,
        (2000).to_bytes(8, "little") + b"[" * 2000,
        (10).to_bytes(8, "little") + b"123456789 ",
    ],
    ids=["empty", "short", "pickle", "2**63", "10**9", "no text", "cut JSON", "deep", "number"],
)
def test_what_is_no_such_file_is_refused(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(raw)
    for function in (skact.load, skact.describe):
        with pytest.raises(ValueError, match="cannot be read: it"):
            function(tmp_path / "a")
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_no_memory_is_taken_for_what_is_claimed(tmp_path):
    path = tmp_path / "a"
    write_file(path, {"version": "1"}, {"0": np.zeros(1000)})
    header(path, lambda head, _: head["0"].update(shape=[2**40], data_offsets=[0, 2**43]))

    def load():
        with pytest.raises(ValueError, match="claim"):
            skact.load(path)

    assert peak_of(load) < 2**21


def test_arrays_are_not_kept_to_describe(tmp_path):
    path = tmp_path / "a"
    write_file(path, {"version": "1"}, {"0": np.zeros(2**22)})
    assert peak_of(lambda: read_file(path, with_tensors=False)) < 2**24
    assert peak_of(lambda: read_file(path, with_tensors=True)) < 2**25 + 2**20


def test_a_header_may_not_be_endless(tmp_path):
    with pytest.raises(ValueError, match="names and settings take"):
        write_file(tmp_path / "a", {"nodes": ["x" * 2**25]}, {})
    assert not list(tmp_path.iterdir())

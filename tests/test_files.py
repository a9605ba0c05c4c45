"""Files of others: limits, and the place that an error names."""

import json
import os

import pytest

from skact import files


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100 + "]" * 100,
        json.dumps({"a": ["["] * 300, "b": '\\"' + "{" * 300}),
        json.dumps([[1]] * 5000),
        "9" * 4300,
        "\n[1,\n2]\n",
    ],
)
def test_what_is_within_the_limits_is_read(text):
    assert files.parse_json(text, "x") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 101 + "]" * 101, "x: nested more than 100 deep, at column 101"),
        ("[" * 10**6, "nested more than 100 deep, at column 101"),
        ('{"a":' * 10**5, "nested more than 100 deep, at column 501"),
        ('["[[[",\n' + " [" * 200, "at line 2 column 200"),
        ("9" * 4301, "a number of 4301 digits, at column 1"),
        ('{"1' + "1" * 5000 + '":\n [3, -' + "1" * 5000, "of 5000 digits, at line 2 column 7"),
        ("{", r"x: not JSON \(Expecting property name .*\), at column 2"),
        ('{"a": 1,\n"b" 2}', r"not JSON \(.*\), at line 2 column 5"),
        ("", "not JSON .* at column 1"),
    ],
)
def test_what_is_beyond_them_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        files.parse_json(text, "x")


def test_the_limit_holds_wherever_python_stands():
    def deep(n):
        return deep(n - 1) if n else files.parse_json("[" * 99 + "]" * 99, "x")

    assert deep(400) == files.parse_json("[" * 99 + "]" * 99, "x")


def test_whole_files(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.json"):
        files.read_json(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a\.json is not UTF-8"):
        files.read_json(path)
    path.write_text("[1]")
    assert files.read_json(path) == [1]
    os.truncate(path, 2**26 + 1)
    with pytest.raises(ValueError, match=r"a\.json takes 67108865 bytes, more than 67108864"):
        files.read_json(path)


@pytest.fixture
def folder(tmp_path):
    """A folder with files, links that stay inside, and links that lead out."""
    root = tmp_path / "root"
    for where in (root / "in", tmp_path / "out"):
        where.mkdir(parents=True)
        (where / "a").touch()
    (root / "fine").symlink_to(root / "in")
    (root / "file").symlink_to("in/a")
    (root / "leads").symlink_to(tmp_path / "out")
    (root / "leads.png").symlink_to("../out/a")
    return root


@pytest.mark.parametrize("name", ["in/a", "fine/a", "file", "in/../in/a", "./file"])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_paths_inside(folder, name, through_a_link):
    root = folder
    if through_a_link:
        root = folder.parent / "other"
        root.symlink_to(folder)
    assert os.path.samefile(files.inside(root, name, "x"), folder / "in" / "a")


@pytest.mark.parametrize(
    "name",
    ["../out/a", "in/../../out/a", "leads/a", "leads.png", "", ".", "a\0", "/etc/hosts", "\ud800"],
)
def test_paths_that_lead_out(folder, name):
    with pytest.raises(ValueError, match="x must be a path inside the folder, got"):
        files.inside(folder, name, "x")


def test_a_name_is_no_longer_than_a_path_can_be(folder):
    for name in ("a" * 300, "a/" * 2000):
        with pytest.raises(FileNotFoundError, match="x: there is no file"):
            files.inside(folder, name, "x")
    with pytest.raises(ValueError, match="x must be a path inside the folder, got") as error:
        files.inside(folder, "a" * 5000, "x")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("name", "stays"),
    [("in", True), ("fine/a", True), ("none", True), ("leads/a", False), ("leads.png", False)],
)
def test_links_that_were_found(folder, name, stays):
    if stays:
        assert files.check_link(folder, folder / name) == folder / name
    else:
        with pytest.raises(ValueError, match=f"{name} leads out of the folder .*root, to '.*out/a"):
            files.check_link(folder, folder / name)


def test_paths_that_lead_nowhere(folder):
    with pytest.raises(FileNotFoundError, match="x: there is no file"):
        files.inside(folder, "in/b", "x")


@pytest.mark.parametrize("size", [0, 2**24, 3 * 10**7])
def test_sizes_that_are_believed(size):
    files.check_size(size, 10**6, 30)


@pytest.mark.parametrize(("size", "n_bytes"), [(2**24 + 1, 0), (3 * 10**7 + 1, 10**6)])
def test_sizes_that_are_not(size, n_bytes):
    with pytest.raises(ValueError, match=f"{n_bytes} bytes claim a size of {size}, over 30 times"):
        files.check_size(size, n_bytes, 30)


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a"
    with files.in_one_step(path) as file:
        file.write_bytes(b"old")
        assert not path.exists()
    with pytest.raises(IsADirectoryError), files.in_one_step(path) as file:
        tmp_path.write_bytes(file.read_bytes())
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_has_to_be_there_before_work_begins(tmp_path, monkeypatch):
    files.check_folder(tmp_path / "a.html")
    monkeypatch.chdir(tmp_path)
    files.check_folder("a.html")
    with pytest.raises(FileNotFoundError, match=r"path names a file in .*none"):
        files.check_folder(tmp_path / "none" / "a.html")
    with pytest.raises(IsADirectoryError, match=r"path must name a file, and .* is a folder"):
        files.check_folder(tmp_path)


def test_lines_are_appended_behind_a_torn_one(tmp_path):
    path = tmp_path / "lines"
    files.append_lines(path, ["one", "two"])
    with path.open("a") as file:
        file.write("torn")
    files.append_lines(path, ["three"])
    assert path.read_text() == "one\ntwo\ntorn\nthree\n"

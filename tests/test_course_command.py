"""python -m minivl assignment as an instructor and a student meet it: make, pack, grade, many at once, and faults."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from minivl import __main__ as cli
from minivl.course import grading, results
from minivl.course.a1 import A1
from minivl.course.manifest import ASSIGNMENTS
from minivl.course.packing import LARGEST, PACKED
from minivl.course.processes import write

ROOT = Path(__file__).resolve().parents[1]


def call(capsys, *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main(["assignment", *map(str, words)])
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    return code, out, err


def made(folder: Path, name: str = "A1", *more: str) -> Path:
    assert cli.main(["assignment", "make", name, "--out", str(folder), *more]) == 0
    return folder


def solved(folder: Path, *paths: str) -> Path:
    right = A1.reference()
    write(
        {path: right[path] for path in paths or ("minivl/ops/linear_attention.py", "minivl/ops/delta_rule.py")}, folder
    )
    return folder


def test_list_names_every_assignment_task_and_its_points(capsys):
    code, out, _ = call(capsys, "list")
    assert code == 0
    for assignment in ASSIGNMENTS.values():
        assert f"{assignment.name}  {assignment.title}: {assignment.points} points" in out
        for task in assignment.tasks:
            assert f"{task.number}  {task.points:>3}  {task.title}" in out


def test_from_make_to_points_as_the_shell_sees_it(tmp_path):
    """Make, solve one file, grade: a table, exit code 0."""
    folder = tmp_path / "ada"
    solved(made(folder), "minivl/ops/linear_attention.py")
    command = [sys.executable, "-m", "minivl", "assignment", "grade", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "  1.1    15 / 15 " in done.stdout
    assert "  1.4     0 / 30 " in done.stdout
    assert "not written yet (NotImplementedError)" in done.stdout
    assert done.stdout.rstrip().endswith("total 45 / 100")


def test_a_packed_hand_in_is_graded_like_its_folder(capsys, tmp_path):
    folder = solved(made(tmp_path / "ada"), "minivl/ops/delta_rule.py")
    code, out, _ = call(capsys, "pack", folder)
    assert code == 0
    assert "ada.zip: minivl/ops/linear_attention.py, minivl/ops/delta_rule.py" in out
    with zipfile.ZipFile(tmp_path / "ada.zip") as archive:
        assert sorted(archive.namelist()) == [PACKED, "minivl/ops/delta_rule.py", "minivl/ops/linear_attention.py"]
    _, packed, _ = call(capsys, "grade", tmp_path / "ada.zip", "--task", "1.3", "--json", tmp_path / "results.json")
    assert "  1.3    25 / 25 " in packed
    assert "  1.1 " not in packed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == 25
    assert [test["status"] for test in results["tests"]] == ["passed"] * 4
    assert sum(test["max_score"] for test in results["tests"]) == 25


def test_many_hand_ins_give_a_line_each_and_a_csv_that_keeps_what_was_written_into_it(capsys, tmp_path):
    """A folder, a zip, an empty one, another assignment a folder deeper, and one that was changed after packing."""
    class_folder = tmp_path / "class"
    class_folder.mkdir()
    solved(made(class_folder / "ada"))
    call(capsys, "pack", made(tmp_path / "bob"), "--out", class_folder / "bob.zip")
    (class_folder / "cid").mkdir()
    made(class_folder / "dan" / "A2", "A2")
    with zipfile.ZipFile(class_folder / "bob.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(class_folder / "eve.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text + (b"\n# later\n" if name.endswith("delta_rule.py") else b""))
    grades = tmp_path / "grades.csv"
    grades.write_text("name,late,extra_time,regrade\nada,2 days,,asked\n", encoding="utf-8")
    code, out, err = call(capsys, "grade", class_folder, "--assignment", "A1", "--csv", grades, "--task", "1.1")
    assert code == 0, err
    with grades.open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["score"] for name, row in rows.items()} == {
        "ada": "15",
        "bob": "0",
        "cid": "0",
        "dan": "0",
        "eve": "0",
    }
    assert rows["ada"]["late"] == "2 days"
    assert rows["ada"]["regrade"] == "asked"
    assert "no assignment.json" in rows["cid"]["note"]
    assert "is A2" in rows["dan"]["note"]
    assert "changed after packing: minivl/ops/delta_rule.py" in rows["eve"]["note"]
    assert "5 hand-ins" in err
    assert [line.split()[0] for line in out.splitlines()[-5:]] == ["ada", "bob", "cid", "dan", "eve"]


def test_a_variant_has_its_own_equation_and_its_own_points(capsys, tmp_path):
    folder = made(tmp_path / "ada", "A1", "--variant", "7")
    assert "Your variant: read before write" in (folder / "README.md").read_text(encoding="utf-8")
    assert "S_{t−1}ᵀ q_t" in (folder / "tasks/1.1.md").read_text(encoding="utf-8")
    right = A1.reference(1)
    write({"minivl/ops/linear_attention.py": right["minivl/ops/linear_attention.py"]}, folder)
    assert "15 / 15" in call(capsys, "grade", folder, "--task", "1.1")[1]
    solved(folder)
    _, out, _ = call(capsys, "grade", folder, "--task", "1.1")
    assert "  1.1     0 / 15 " in out
    assert "the rule as it is published, not your variant's" in out
    code, _, err = call(capsys, "grade", folder, "--variant", "0")
    assert code == 1
    assert "is A1, variant 1; it should be A1, variant 0" in err


def test_what_cannot_run_here_counts_neither_way(capsys, tmp_path, monkeypatch):
    """Where there is no Triton, its tasks are neither lost nor won, and it is said."""
    folder = made(tmp_path / "ada", "A5")
    monkeypatch.setattr(grading.importlib.util, "find_spec", lambda name: None)
    _, out, _ = call(capsys, "grade", folder, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert out.count("not run here: Triton exists for Linux only") == 3
    assert "total 0 / 20" in out
    tests = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["tests"]
    assert sum(test["max_score"] for test in tests) == 20
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines())
    assert (row["5.1"], row["5.4"], row["of"]) == ("", "0", "20")


def test_what_holds_answers_of_other_assignments_says_so(capsys, tmp_path):
    call(capsys, "make", "A4", "--out", tmp_path / "A4")
    code, out, _ = call(capsys, "make", "A5", "--out", tmp_path / "A5")
    assert code == 0
    assert "holds answers of A2" in out.replace("hold answers", "holds answers")


FAULTS = {
    "no such assignment": (["make", "A9", "--out", "new"], "there is no assignment 'A9'"),
    "a folder with something in it": (["make", "A1", "--out", "full"], "is not empty"),
    "a file for a folder": (["make", "A1", "--out", "full/a"], "full/a"),
    "no variants": (["make", "A5", "--variant", "3", "--out", "new"], "A5 has no variants"),
    "a variant below 0": (["make", "A1", "--variant", "-1", "--out", "new"], "--variant is -1"),
    "nothing there": (["grade", "nowhere"], "nowhere is neither a folder nor a packed hand-in"),
    "no hand-ins": (["grade", "empty"], "is no student's folder and no packed hand-in, and holds none"),
    "a folder of none": (["grade", "full"], "is no student's folder"),
    "not a zip": (["grade", "full/a"], "full/a is no zip, or is damaged"),
    "another zip": (["grade", "other.zip"], f"has no {PACKED}"),
    "a large zip": (["grade", "large.zip"], f"more than {LARGEST:,} bytes"),
    "a way out": (["grade", "out.zip"], "is damaged"),
    "no task": (["grade", "made", "--task", "9.9"], "A1 has no task 9.9"),
    "another assignment": (["grade", "made", "--assignment", "A2"], "it should be A2"),
    "no place for results": (["grade", "made", "--json", "no/where.json"], "is not a folder"),
    "nothing to pack": (["pack", "empty"], "has no assignment.json"),
    "damaged": (["grade", "damaged"], "is damaged: it should be as `assignment make` wrote it"),
    "a file that is gone": (["pack", "gone"], "is missing; it should be handed in"),
}


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """A folder with whatever can be wrong."""
    home = tmp_path_factory.mktemp("messy")
    (home / "full").mkdir()
    (home / "full/a").write_text("a", encoding="utf-8")
    (home / "empty").mkdir()
    about = {"assignment": "A1", "variant": 0, "version": "", "hand in": ["minivl/ops/delta_rule.py"]}
    for name, content in (
        ("other.zip", {"a": "a"}),
        ("large.zip", {PACKED: json.dumps(about), "minivl/ops/delta_rule.py": "#" * (LARGEST + 1)}),
        ("out.zip", {PACKED: json.dumps(about | {"hand in": ["../../etc/passwd"]})}),
    ):
        with zipfile.ZipFile(home / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in content.items():
                archive.writestr(path, text)
    for name in ("made", "damaged", "gone"):
        made(home / name)
    (home / "damaged/assignment.json").write_text("{", encoding="utf-8")
    (home / "gone/minivl/ops/delta_rule.py").unlink()
    return home


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_exit_code_1(capsys, monkeypatch, messy, fault):
    monkeypatch.chdir(messy)
    capsys.readouterr()
    words, says = FAULTS[fault]
    code, _, err = call(capsys, *words)
    assert code == 1, err
    assert says in err
    assert err.count("\n") == 1


def test_a_name_that_a_spreadsheet_would_run_is_only_text(tmp_path):
    results.write_csv([results.Graded("=cmd()", A1, 0, "", note="-1")], tmp_path / "a.csv")
    assert "'=cmd()" in (tmp_path / "a.csv").read_text(encoding="utf-8")

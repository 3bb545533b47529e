"""`tollgate route eval`: what it prints is what the rows say, and no fold is judged by what saw it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.cli import main
from gateway.commands.route_eval import Unusable, learned, parts, read


def rows(path: Path, count: int = 300, **more: object) -> Path:
    draw = random.Random(1)
    with path.open("w") as file:
        for _ in range(count):
            hard = draw.random() < 0.5
            text = f"{'prove the theorem of' if hard else 'name the colour of'} x{draw.randrange(50)}"
            scores = {"small": float(not hard), "large": 1.0}
            file.write(json.dumps({"prompt": text, "domain": f"d{draw.randrange(6)}", "scores": scores, **more}) + "\n")
    return path


def test_the_report_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "curve.svg"
    command = ["route", "eval", str(rows(tmp_path / "rows.jsonl")), "--price", "small=1", "--price", "large=10"]
    assert main([*command, "--plot", str(plot)]) == 0
    out, err = capsys.readouterr()
    assert "300 prompts, 2 models, 5 folds" in out
    mean = re.search(r"mean of folds: APGR ([.\d]+)", out)
    assert mean is not None
    assert float(mean[1]) > 0.7  # who is wrong is plain from the words: an oracle has about .75
    goal = re.search(r"mean:   quality +([.\d]+)%  cost +([.\d]+)%", out)
    assert goal is not None
    assert float(goal[1]) >= 96
    assert 45 < float(goal[2]) < 65  # half of the prompts need the large model, the rest costs a tenth
    assert "5 of 5 folds" in err
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_one_file_teaches_and_another_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = rows(tmp_path / "a.jsonl", 200), rows(tmp_path / "b.jsonl", 100)
    assert main(["route", "eval", str(second), "--train", str(first), "--cost", "0.6"]) == 0
    out = capsys.readouterr().out
    assert "100 prompts, 2 models, 1 folds" in out
    assert "goal cost <= 60%" in out


def test_costs_of_the_rows_come_before_prices(tmp_path: Path) -> None:
    data = read(rows(tmp_path / "rows.jsonl", 20, costs={"small": 2, "large": 4}), {"small": 1, "large": 1})
    assert data.models == ("large", "small")
    assert data.costs[0] == (1.0, 0.5)


def test_no_fold_is_scored_by_what_saw_it(tmp_path: Path) -> None:
    """A score that only the row itself could teach is not expected of it."""
    data = read(rows(tmp_path / "rows.jsonl", 50), {})
    plan = parts(data, 5, by_domain=False)
    assert sorted(row for fold in plan for row in fold) == list(range(50))
    marked = plan[0][0]
    before = learned(data, plan, range(50), lambda done, of: None)
    data.scores[marked] = (0.0, 0.0)
    after = learned(data, plan, range(50), lambda done, of: None)
    assert before[0].expected == after[0].expected
    assert before[1].expected != after[1].expected


def test_whole_domains_stay_together(tmp_path: Path) -> None:
    data = read(rows(tmp_path / "rows.jsonl", 100), {})
    plan = parts(data, 3, by_domain=True)
    for one in plan:
        for other in plan:
            if one is not other:
                assert not {data.domains[row] for row in one} & {data.domains[row] for row in other}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least 10"),
        ('{"prompt": 1}\n' * 20, ":1: "),
        ('{"prompt": "a", "scores": {"m": 1}}\n' * 10 + '{"prompt": "a", "scores": {"n": 1}}\n', "row 11"),
        ('{"prompt": "a", "scores": {}}\n' * 10, "row 1 scores no model"),
        ('{"prompt": "a", "scores": {"m": 97}}\n' * 10, ":1: .*<= 1"),
        ('{"prompt": "a", "scores": {"m": 1}, "costs": {"m": -1}}\n' * 10, ":1: .*>= 0"),
        ('{"prompt": "a", "scores": {"m": 1}, "costs": {"m": 0}}\n' * 10, "all models cost nothing"),
        ('{"prompt": "a", "scores": {"m": 1, "n": 1}, "costs": {"m": 1, "N": 1}}\n' * 10, "row 1 states no cost of n,"),
        (
            '{"prompt": "a", "scores": {"m": 1}, "costs": {"m": 9}}\n' * 10 + '{"prompt": "a", "scores": {"m": 1}}',
            "row 11 states no cost of m,",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(Unusable, match=reason):
        read(path, {})


def test_a_missing_price_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "eval", str(rows(tmp_path / "rows.jsonl", 20)), "--price", "small=1"]) == 1
    assert "row 1 states no cost of large, and no --price does" in capsys.readouterr().err
    prices = ["--price", "small=1", "--price", "large=1", "--price", "lrage=2"]
    assert main(["route", "eval", str(tmp_path / "rows.jsonl"), *prices]) == 1
    assert "--price names lrage, of which" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["route", "eval", str(tmp_path / "rows.jsonl"), "--price", "small=x"])
    assert "small=x is not MODEL=NUMBER" in capsys.readouterr().err
    assert main(["route", "eval", str(tmp_path / "none.jsonl")]) == 1
    assert main(["route", "eval", str(tmp_path / "rows.jsonl"), "--by-domain", "--folds", "3"]) == 0


@pytest.mark.parametrize("scores", [{"small": 0, "large": 0}, {"small": 1, "large": 1}])
def test_models_that_never_or_always_are_right_have_a_report_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: dict[str, int]
) -> None:
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"prompt": "a", "scores": scores, "costs": {"small": 0, "large": 1}})
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\n".encode() * 20)
    assert main(["route", "eval", str(path)]) == 0
    assert "mean:   quality 100.0%  cost   0.0%" in capsys.readouterr().out


def test_a_domain_that_the_others_best_model_is_no_good_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": "a", "domain": f"d{n % 2}", "scores": {"small": n % 2, "large": 1 - n % 2}} for n in range(20)]
    path.write_text("".join([json.dumps(line) + "\n" for line in lines]))
    assert main(["route", "eval", str(path), "--by-domain"]) == 0
    assert "2 folds" in capsys.readouterr().out


def test_where_the_picture_cannot_go_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "none" / "curve.svg"
    assert main(["route", "eval", str(rows(tmp_path / "rows.jsonl", 20)), "--plot", str(plot)]) == 1
    out, err = capsys.readouterr()
    assert f"{plot} cannot be written" in err
    assert out == ""
    assert "folds" not in err

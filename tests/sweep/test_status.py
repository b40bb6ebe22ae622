"""What the results have and lack."""

from helpers import result_of

from lc import hours, results, study
from lc.sweep import status


def test_rows_are_counted_by_experiment_and_profile_and_missing_runs_named(store, monkeypatch):
    def lines(*arguments):
        return list(status.report(*arguments, device="cpu"))

    monkeypatch.setattr(hours, "estimator", lambda device: (lambda run: 3600.0, "nothing"))
    runs = study.figure4("quick")
    results._write({run.id: result_of(run).row() for run in runs[:-1]}, store)
    printed = lines(["figure4"])
    assert [line.split() for line in printed[1:5]] == [
        ["figure4", "paper", "0", "80", "80.00"], ["figure4", "short", "0", "28", "28.00"],
        ["figure4", "quick", "23", "24", "1.00"], ["figure4", "smoke", "0", "6", "6.00"]]
    one = lines(["figure4"], "quick")
    assert one[1].split() == ["figure4", "quick", "23", "24", "1.00"]
    assert one[2].strip() == f"missing: {runs[-1].id}"
    assert one[3].endswith("estimated from nothing") and len(one) == 4

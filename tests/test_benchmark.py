"""The benchmark prints every case with its ratios; how fast they are is not tested."""

from lc.benchmark import benchmark


def test_every_case_is_printed_with_its_ratios(capsys):
    rates = benchmark("cpu", "fp32", batch=4, models=("ResNet-8-8", "ResNet-LC-8-8x2"), seconds=0)
    assert set(rates) == {("ResNet-8-8", kind, "lc") for kind in ("frozen", "learnable")} | {
        ("ResNet-LC-8-8x2", kind, path) for kind in ("frozen", "learnable") for path in ("lc", "unfolded")}
    assert all(rate > 0 for rate in rates.values())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    ratios = {tuple(line[:3]): line for line in lines if line and line[0] in ("ResNet-8-8", "ResNet-LC-8-8x2")}
    assert ratios["ResNet-8-8", "learnable", "lc"][5] == "1.00"
    ours, unfolded = (rates["ResNet-LC-8-8x2", "frozen", path] for path in ("lc", "unfolded"))
    assert ratios["ResNet-LC-8-8x2", "frozen", "lc"][6] == f"{ours / unfolded:.1f}x"
    assert "data pipeline alone" in " ".join(lines[-1])

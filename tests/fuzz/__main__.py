"""Fuzzes one target: `pip install atheris && python -m tests.fuzz record 600 /tmp/corpus` for ten minutes.

What is found is written to tests/data/fuzz/<target>/, where tests/unit/test_fuzz_cases.py replays it from then on.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hopperforge"]):
    from tests.fuzz.targets import PROJECT, TARGETS, seeds, try_out

_LARGEST = 20_000


def main() -> None:
    """Run libFuzzer on the target of the first word, for the seconds of the second, with the corpus of the third."""
    if len(sys.argv) != 4 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"python -m tests.fuzz TARGET SECONDS CORPUS; the targets are {', '.join(TARGETS)}")
    name, seconds, corpus = sys.argv[1], sys.argv[2], Path(sys.argv[3]) / sys.argv[1]
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(seeds(name)):
        (corpus / f"seed-{index}").write_bytes(seed)
    found = PROJECT / "tests" / "data" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-max_len={_LARGEST}", "-timeout=20"]
    flags += ["-rss_limit_mb=2000", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], lambda data: try_out(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()

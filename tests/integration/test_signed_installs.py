"""Signatures where wheels are installed: the doctor in one file, and a bundle that installs with a public key alone."""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.command import hopperforge
from tests.integration.fake_node import H100, smi, torch
from tests.integration.serving import serving
from tests.unit import proof_zoo
from tests.unit.node_zoo import TORCH
from tests.unit.signed_zoo import GATES, SPOILED, SignedIndex, signed_index

from hopperforge.node.single_file import doctor_source
from hopperforge.stages.attest import make_keys, sign_package

pytestmark = pytest.mark.integration

# a node that the wheel of CUDA 13.0 fits
TORCH_13 = TORCH.replace(b"2.6.0+cu124", b"2.11.0+cu130").replace(b"12.4", b"13.0")


BUNDLE = ("bundle", "cuda=13.0", "torch=2.10", "profile=hdim128-bf16", "--allow-unproven")  # it ran on no GPU


@pytest.fixture
def index(tmp_path: Path) -> SignedIndex:
    """An index whose key holds by this machine's own clock, which is the doctor's."""
    made = signed_index(tmp_path, now=datetime.now(UTC).replace(microsecond=0))
    smi(tmp_path, H100)
    torch(tmp_path, version=TORCH_13)
    return made


def doctor(home: Path, *words: str | Path) -> tuple[int, str]:
    environment = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(home / "site"), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-S", "-", *words],
        input=doctor_source(),
        capture_output=True,
        env=environment,
        cwd=home,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, done.stdout.decode()


def test_a_signed_wheel_is_taken_from_a_folder_and_from_a_server(index: SignedIndex, tmp_path: Path) -> None:
    (index.root / "index.html").write_text("an index\n")
    with serving(index.root, tmp_path) as address:
        held = ("--no-import", "--json", "--require-signature", str(index.public))
        for place in (str(index.root), address):
            status, text = doctor(tmp_path, "--index", place, *held)
            assert status == 20, text
            report = json.loads(text)
            assert "signed by a key that is trusted here" in report["why"]
            assert report["commands"]
        index.signature.unlink()
        status, text = doctor(tmp_path, "--index", address, *held)
    assert status == 21
    assert "it is not signed, and a signature was asked for" in text


@pytest.mark.parametrize("what", SPOILED)
def test_what_was_passed_off_is_refused_and_no_line_installs_it(index: SignedIndex, tmp_path: Path, what: str) -> None:
    spoil, said = SPOILED[what]
    spoil(index)
    words = ("--index", str(index.root), "--no-import", "--require-signature", str(index.public))
    status, text = doctor(tmp_path, *words)
    assert status == 21, text
    assert f"{index.wheel.name} is not to be trusted: " in text
    assert said in text
    assert "pip install --no-deps 'fa3-fwd" not in text
    only, answer = doctor(tmp_path, *words, "--signatures-only")
    assert only == 21
    assert said in answer
    # without the demand the same index is read as ever
    assert doctor(tmp_path, *words[:3])[0] == 20


def test_words_about_keys_that_cannot_be_meant_are_refused(index: SignedIndex, tmp_path: Path) -> None:
    for words in (
        ["--signatures-only"],
        ["--require-signature", "nowhere.pem"],
        ["--require-signature", index.private],
    ):
        done = subprocess.run(
            [sys.executable, "-", "--index", index.root, *words],
            input=doctor_source(),
            capture_output=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 2, done.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "packages.json").write_text('{"format": 1, "packages": []}')
    assert doctor(tmp_path, "--index", empty, "--require-signature", index.public, "--signatures-only")[0] == 21


@pytest.fixture
def house(tmp_path: Path) -> SignedIndex:
    """A wheelhouse with one signed package."""
    wheel, record = proof_zoo.package(tmp_path / "wheelhouse")
    Path(f"{wheel}.json").write_bytes(dataclasses.replace(record, gates=GATES).to_json())
    private, public = make_keys(tmp_path / "keys", "release", now=datetime.now(UTC).replace(microsecond=0), days=30)
    sign_package(wheel, private)
    return SignedIndex(root=tmp_path, private=private, public=public)


def test_a_signed_bundle_installs_with_the_key_alone(house: SignedIndex, tmp_path: Path) -> None:
    words = (*BUNDLE, f"to={tmp_path / 'b.tar'}", f"key={house.public}")
    made = hopperforge(*words, home=tmp_path)
    assert made.status == 0, made.err
    assert "installs with a public key alone" in made.out
    with tarfile.open(tmp_path / "b.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (bundle,) = tmp_path.glob("fa3-fwd-cu130-*")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "node"], check=True)
    python = {
        "PYTHON": str(tmp_path / "node" / "bin" / "python"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }

    def install(**changes: str) -> tuple[int, str]:
        done = subprocess.run(
            ["./install.sh"], cwd=bundle, env={**os.environ, **python, **changes}, capture_output=True, check=False
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    status, said = install()
    assert status != 0
    assert "name a public key that did not come with it" in said
    _, stranger = make_keys(tmp_path / "keys", "stranger", now=datetime.now(UTC), days=1)
    status, said = install(KEY=str(stranger))
    assert status == 21
    assert "it is signed with a key that is not trusted here" in said
    assert not list((tmp_path / "node").rglob("fa3_fwd"))
    status, said = install(KEY=str(house.public))
    assert status == 0, said
    assert list((tmp_path / "node").rglob("fa3_fwd"))


def test_a_bundle_takes_nothing_that_the_key_has_not_signed(house: SignedIndex, tmp_path: Path) -> None:
    _, stranger = make_keys(tmp_path / "keys", "stranger", now=datetime.now(UTC), days=1)
    words = (*BUNDLE, f"to={tmp_path / 'b.tar'}")
    other = hopperforge(*words, f"key={stranger}", home=tmp_path)
    assert other.status == 12
    assert "it is signed with a key that is not trusted here" in other.err
    (signature,) = (tmp_path / "wheelhouse").glob("*.dsse.json")
    signature.unlink()
    unsigned = hopperforge(*words, f"key={house.public}", home=tmp_path)
    assert unsigned.status == 12
    assert "is not signed, and a signature was asked for" in unsigned.err
    assert not (tmp_path / "b.tar").exists()

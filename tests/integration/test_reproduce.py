"""Reproducing from an address over a real server, and what a real diffoscope says of a real difference."""

import dataclasses
import json
from pathlib import Path

import pytest
from tests.integration.command import hopperforge
from tests.integration.serving import serving
from tests.unit import proof_zoo
from tests.unit import wheel_zoo as zoo

from hopperforge.errors import GateError
from hopperforge.model.versions import PythonVersion
from hopperforge.run.files import sha256_file
from hopperforge.stages.front_inputs import last_writers
from hopperforge.stages.rebuild import Rebuilt
from hopperforge.verbs import Call
from hopperforge.verbs_proof import _compare

pytestmark = pytest.mark.integration

SEVEN = 'extern "C" void* PyInit__C() { return (void*)7; }\n'


def _call(folder: Path) -> Call:
    return Call(
        words=(),
        as_json=False,
        workspace=zoo.workspace(folder),
        python=PythonVersion(3, 11),
        platform="linux_x86_64",
        now=lambda: "2026-11-27T07:00:00Z",
        answer=lambda _: None,
    )


def test_diffoscope_shows_the_instruction_that_differs(tmp_path: Path) -> None:
    path, record = proof_zoo.package(tmp_path / "one")
    other, another = proof_zoo.package(tmp_path / "two", {zoo.LIBRARY: zoo.library(SEVEN)})
    before, after = Rebuilt(path=path, record=record), Rebuilt(path=other, record=another)
    with pytest.raises(GateError) as caught:
        _compare(_call(tmp_path), before, after)
    detail = "\n".join(caught.value.detail)
    assert f"front: {zoo.LIBRARY} differs" in detail
    assert "-\tmov    $0x0,%eax" in detail
    assert "+\tmov    $0x7,%eax" in detail
    (report,) = (line for line in caught.value.detail if line.startswith("the whole report: "))
    assert "PyInit__C" in Path(report.removeprefix("the whole report: ")).read_text()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as publishing makes it, as far as reproducing reads one, with a wheel that this hopperforge wrote."""
    pool = tmp_path / "index" / "pool" / "fa3-fwd"
    path, record = proof_zoo.package(pool)
    tools = {**record.front.tools, **last_writers()}
    record = dataclasses.replace(record, front=dataclasses.replace(record.front, tools=tools))
    Path(f"{path}.json").write_bytes(record.to_json())
    (tmp_path / "index" / "index.html").write_text("an index\n")
    return tmp_path / "index"


def _wheel(site: Path) -> Path:
    (path,) = (site / "pool" / "fa3-fwd").glob("*.whl")
    return path


def test_an_address_without_a_record_beside_it_is_named(site: Path, tmp_path: Path) -> None:
    wheel = _wheel(site)
    with serving(site, tmp_path) as address:
        missing = hopperforge("reproduce", f"wheel={address}pool/fa3-fwd/other.whl", home=tmp_path)
        Path(f"{wheel}.json").unlink()
        unrecorded = hopperforge("reproduce", f"wheel={address}pool/fa3-fwd/{wheel.name}", home=tmp_path)
    assert missing.status == unrecorded.status == 5
    assert f"other.whl cannot be fetched from {address}pool/fa3-fwd: " in missing.err
    assert f"{wheel.name}.json cannot be fetched" in unrecorded.err
    assert "404" in unrecorded.err


def test_what_a_server_changed_is_not_built(site: Path, tmp_path: Path) -> None:
    wheel = _wheel(site)
    place = Path(f"{wheel}.json")
    record = json.loads(place.read_text())
    with serving(site, tmp_path) as address:
        url = f"{address}pool/fa3-fwd/{wheel.name.replace('+', '%2B')}"
        older = {**record, "front": {**record["front"], "tools": {**record["front"]["tools"], "zlib": "1.3.1"}}}
        place.write_text(json.dumps(older))
        packed_by_another = hopperforge("reproduce", f"wheel={url}#sha256={sha256_file(wheel)}", home=tmp_path)
        place.write_text(json.dumps(record))
        with wheel.open("ab") as stream:
            stream.write(b"x")
        changed = hopperforge("reproduce", f"wheel={url}", home=tmp_path)
    assert packed_by_another.status == changed.status == 2
    assert "zlib: 1.3.1 then, not used now" in packed_by_another.err
    assert "is the record of another file" in changed.err
    assert list((tmp_path / "wheelhouse").glob("*")) == []

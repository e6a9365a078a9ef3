"""Whatever is wrong is a status and a sentence, and the process and the device live on."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest
from capi import LAUNCH_FAILED, MISALIGNED, OK, TRIMMED, WORKSPACE_TOO_SMALL, ForwardParams, contiguous
from refusals import NEEDING, REFUSALS, Refusal, expected, good_backward, good_forward
from smoke_kit import Driver, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def call(subject: Subject, driver: Driver) -> ForwardParams:
    """A call that works, over memory of zeros."""
    head_dim = subject.head_dims[-1]
    params = good_forward(subject.library, head_dim)
    for name, rows in (("q", 64), ("k", 96), ("v", 96), ("out", 64)):
        setattr(params, name, contiguous(driver.allocate(2 * rows * 4 * head_dim * 2), rows, 4, head_dim))
    return params


def launch(subject: Subject, driver: Driver, params: ForwardParams) -> int:
    """Give a call the workspace it asks for, and wait for it."""
    status, bytes_ = subject.library.workspace(params)
    assert status == OK, subject.library.message
    status = subject.library.launch(params, driver.allocate(bytes_ + 256), bytes_)
    assert driver.synchronize() == 0
    return status


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_refused(subject: Subject, refusal: Refusal) -> None:
    params = good_forward(subject.library)
    refusal.change(params)
    status, words = expected(refusal, subject.build.switches)
    found = subject.library.launch(params, 0, 0)
    assert (subject.library.name(found), words in subject.library.message) == (subject.library.name(status), True), (
        subject.library.message
    )


@pytest.mark.parametrize("feature", NEEDING)
def test_trimmed_features_name_the_profile(subject: Subject, feature: str) -> None:
    params = good_forward(subject.library)
    NEEDING[feature](params)
    status = subject.library.check(params)
    if subject.has(feature):
        assert status == OK, subject.library.message
    else:
        assert status == TRIMMED
        assert f"`{subject.build.profile}`" in subject.library.message


def test_backward_is_refused_where_it_was_trimmed(subject: Subject) -> None:
    status = subject.library.check(good_backward(subject.library, subject.head_dims[-1]))
    assert status == (OK if subject.has("BACKWARD") else TRIMMED), subject.library.message


def test_workspace_too_small(subject: Subject, driver: Driver, call: ForwardParams) -> None:
    status, bytes_ = subject.library.workspace(call)
    assert (status, bytes_ > 0) == (OK, True)  # softmax_lse goes there where the caller wants none
    memory = driver.allocate(bytes_ + 256)
    assert subject.library.launch(call, memory, bytes_ - 1) == WORKSPACE_TOO_SMALL
    assert str(bytes_) in subject.library.message
    assert subject.library.launch(call, 0, bytes_) == WORKSPACE_TOO_SMALL
    assert subject.library.launch(call, memory + 16, bytes_) == MISALIGNED
    assert launch(subject, driver, call) == OK


@pytest.fixture
def refusing_stream(driver: Driver) -> Iterator[int]:
    """A stream whose capture was spoiled: whatever is put on it is refused until the capture ends."""
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.c.cuStreamCreate(ctypes.byref(stream), 1) == 0
    assert driver.c.cuStreamBeginCapture_v2(stream, 2) == 0  # relaxed: memory may still be allocated
    assert driver.c.cuStreamSynchronize(stream) != 0  # not allowed in a capture, and spoils it
    yield stream.value or 0
    driver.c.cuStreamEndCapture(stream, ctypes.byref(graph))
    assert driver.c.cuStreamDestroy_v2(stream) == 0


@pytest.mark.parametrize("causal", [0, 1])
def test_failed_launch(
    subject: Subject, driver: Driver, call: ForwardParams, refusing_stream: int, causal: int
) -> None:
    """Upstream would end the process, or say nothing; a causal call fails before its kernel, clearing its counter."""
    call.problem.causal = causal
    status, bytes_ = subject.library.workspace(call)
    assert status == OK
    found = subject.library.launch(call, driver.allocate(bytes_ + 256), bytes_, refusing_stream)
    assert subject.library.name(found) == subject.library.name(LAUNCH_FAILED), subject.library.message
    assert "cudaErrorStreamCapture" in subject.library.message


def test_calls_work_after_a_failed_launch(subject: Subject, driver: Driver, call: ForwardParams) -> None:
    """Runs after the failed launches above, in the same process and context."""
    assert launch(subject, driver, call) == OK


def test_nothing_is_allocated(subject: Subject, driver: Driver, call: ForwardParams) -> None:
    """After the first call, which loads the kernels, the device's free memory stays as it is."""
    status, bytes_ = subject.library.workspace(call)
    assert status == OK
    workspace = driver.allocate(bytes_ + 256)
    assert subject.library.launch(call, workspace, bytes_) == OK
    assert driver.synchronize() == 0
    before = driver.free_bytes()
    for _ in range(20):
        assert subject.library.launch(call, workspace, bytes_) == OK
    assert driver.synchronize() == 0
    assert driver.free_bytes() == before

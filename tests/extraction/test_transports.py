"""How child processes are reached, and the devices that they are for."""

from __future__ import annotations

import os
import signal

import pytest

from tspcli.core.child_process import ChildProcess
from tspcli.errors import UsageError
from tspcli.extraction import ExtractConfig
from tspcli.extraction.transports import ChildTransport, device_names


def test_a_process_that_takes_nothing_is_noticed_while_something_is_sent_to_it() -> None:
    child = ChildProcess("tspcli.extraction.encode_worker")
    try:
        os.kill(child.pid, signal.SIGSTOP)
        child.limit_waiting(0.5)
        with pytest.raises(BlockingIOError):
            child.connection.send_bytes(bytes(8 << 20))
        child.hang_up()
        with pytest.raises(EOFError):
            child.connection.recv()
    finally:
        child.dispose()


@pytest.mark.parametrize(("workers", "each"), [(5, [2, 2, 1]), (1, [1, 1, 1]), (6, [2, 2, 2])])
def test_decode_processes_are_shared_out_among_the_devices(workers: int, each: list[int]) -> None:
    config = ExtractConfig(workers=workers)
    places = ChildTransport(config, ["cuda:0", "cuda:1", "cuda:0"]).places()
    assert [place.n_decoders for place in places] == each
    assert len({place.name for place in places}) == 3


def test_devices_are_named_by_one_option() -> None:
    assert device_names(ExtractConfig(device="cuda:0, cpu")) == ["cuda:0", "cpu"]
    with pytest.raises(UsageError) as caught:
        device_names(ExtractConfig(device="cpu", gpus=2))
    assert caught.value.data == {"option": "--gpus", "value": 2}

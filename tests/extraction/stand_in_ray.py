"""As much of Ray as the driver uses, with actors that are threads of this process.

It stands in for a cluster where only the driver's bookkeeping is tested; the tests with real nodes
are in test_ray.py.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import ModuleType
from typing import Any

import pytest

from tspcli.extraction.task import Close


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """An actor's handle, with the actor behind it."""

    def __init__(self, made: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.instance = made(*arguments)
        self.node = options["scheduling_strategy"].node_id
        self.threads = ThreadPoolExecutor(options["max_concurrency"])
        self.open: set[Future[Any]] = set()
        self.lock = threading.Lock()
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        return Method(self, name)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        with self.lock:
            if self.dead:
                future.set_exception(ActorDiedError("the actor is dead"))
                return future
            self.open.add(future)

        def work() -> None:
            try:
                result, error = getattr(self.instance, name)(*arguments), None
            except Exception as raised:  # as Ray, which hands over any
                result, error = None, RayTaskError(raised)
            with self.lock:
                if future not in self.open:
                    return
                self.open.remove(future)
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.threads.submit(work)
        return future

    def die(self) -> None:
        with self.lock:
            if self.dead:
                return
            self.dead = True
            lost, self.open = self.open, set()
        for future in lost:
            future.set_exception(ActorDiedError("the actor is dead"))
        # As a process that ends: at once for whoever looks on, however long its threads take.
        threading.Thread(target=self.instance.send, args=(Close(),), daemon=True).start()
        self.threads.shutdown(wait=False)


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *arguments: Any) -> Future[Any]:
        return self.actor.call(self.name, arguments)


class StandIn:
    """A cluster.

    Attributes:
        nodes: As ``ray.nodes()`` gives them.
        actors: All that were ever started.
    """

    def __init__(self, n_nodes: int) -> None:
        self.nodes = [
            {"NodeID": f"n{i}", "Alive": True, "NodeManagerAddress": f"10.0.0.{i}",
             "Resources": {"CPU": 1.0}}
            for i in range(n_nodes)
        ]  # fmt: skip
        self.actors: list[Actor] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Be what ``import ray`` finds."""

        def remote(made: Any) -> Any:
            def options(**chosen: Any) -> Any:
                def start(*arguments: Any) -> Actor:
                    self.actors.append(Actor(made, arguments, chosen))
                    return self.actors[-1]

                return _bag("started", remote=start)

            return _bag("class", options=options)

        def ray_wait(
            futures: list[Future[Any]], num_returns: int, timeout: float
        ) -> tuple[list[Future[Any]], list[Future[Any]]]:
            when = FIRST_COMPLETED if num_returns < len(futures) else "ALL_COMPLETED"
            answered = wait(futures, timeout, when).done
            done = [f for f in futures if f in answered][:num_returns]
            return done, [f for f in futures if f not in done]

        strategy = type(
            "NodeAffinitySchedulingStrategy",
            (),
            {"__init__": lambda self, node_id, soft: setattr(self, "node_id", node_id)},
        )
        ray = _bag(
            "ray",
            is_initialized=lambda: True,
            nodes=lambda: self.nodes,
            remote=remote,
            wait=ray_wait,
            get=lambda future: future.result(),
            kill=lambda actor: actor.die(),
        )
        for name, module in {
            "ray": ray,
            "ray.exceptions": _bag("ray.exceptions", RayError=RayError, RayTaskError=RayTaskError),
            "ray.util": _bag("ray.util"),
            "ray.util.scheduling_strategies": _bag(
                "ray.util.scheduling_strategies", NodeAffinitySchedulingStrategy=strategy
            ),
        }.items():
            patch.setitem(sys.modules, name, module)

    def remove(self, node: str) -> None:
        """Lose a node for good."""
        for entry in self.nodes:
            if entry["NodeID"] == node:
                entry["Alive"] = False
        for actor in self.actors:
            if actor.node == node:
                actor.die()


def _bag(name: str, **content: Any) -> Any:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module

"""A learner on a device other than the host, without a GPU: on a fake device without values.

The fake device refuses operations on tensors of two devices, as a GPU would. It also refuses
everything that would make the host wait for a GPU: there are no values to branch on, and each copy
to the host is counted. It runs in a process of its own, since the device cannot be removed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from afterwit.agents.learner import Learner
from afterwit.agents.learner_config import LearnerConfig
from afterwit.agents.vmpo import VMPOConfig
from afterwit.world_models.models.ama import AMAConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.models.disagreement import DisagreementConfig
from afterwit.world_models.models.e3b import E3BConfig
from afterwit.world_models.models.icm import ICMConfig
from afterwit.world_models.models.lpm import LPMConfig
from afterwit.world_models.models.ngu import NGUConfig
from afterwit.world_models.models.noveld import NovelDConfig
from afterwit.world_models.models.re3 import RE3Config
from afterwit.world_models.models.ride import RIDEConfig
from afterwit.world_models.models.rnd import RNDConfig
from tests.helpers import SHAPE, random_trajectory, tiny_spec, tiny_torso_config

NAME = "pretended"
RESETS = ((0, 0), (2, 1), (3, 1), (4, 2))
HINDSIGHT = BYOLHindsightConfig(horizon=3, critic_steps=2)
PUBLISHED = replace(
    HINDSIGHT,
    generator_reads="outcome",
    purity="critic",
    expected_error="off",
    absolute_zero=0.0,
    prioritise=True,
    standardise_decay=None,
    invariance_in_reward=True,
    critic="mlp",
    contrast_size=2,
)
CONFIGS = {
    "byol-hindsight": LearnerConfig(world_model=HINDSIGHT),
    "byol-hindsight as published": LearnerConfig(world_model=PUBLISHED, extrinsic_weight=1.0),
    "byol-explore": LearnerConfig(world_model=BYOLExploreConfig(horizon=3), shared_torso=False),
    "rnd": LearnerConfig(world_model=RNDConfig()),
    "icm": LearnerConfig(world_model=ICMConfig()),
    "disagreement": LearnerConfig(world_model=DisagreementConfig()),
    "ama": LearnerConfig(world_model=AMAConfig()),
    "lpm": LearnerConfig(world_model=LPMConfig()),
    "ride": LearnerConfig(world_model=RIDEConfig()),
    "ngu": LearnerConfig(world_model=NGUConfig()),
    "e3b": LearnerConfig(world_model=E3BConfig()),
    "noveld": LearnerConfig(world_model=NovelDConfig()),
    "re3": LearnerConfig(world_model=RE3Config()),
    "images": LearnerConfig(world_model=HINDSIGHT),
}


@pytest.mark.parametrize(
    "names",
    (
        pytest.param(("byol-hindsight", "e3b", "images"), id="some"),
        pytest.param(tuple(CONFIGS), id="all"),
    ),
)
def test_a_learner_off_the_host_leaves_nothing_there_and_waits_for_nothing(
    names: Sequence[str],
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.agents.test_device", *names]
    result = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if result.returncode == 2:
        pytest.skip("this torch has no pretended devices")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines() == [f"{name}: nothing on the host" for name in names] + [
        "a tensor left on the host: refused"
    ]


def move(module: nn.Module, device: torch.device | None = None, **layout: Any) -> nn.Module:
    """A replacement of `Module.to`: the same parameters on another device.

    Optimisers hold these parameters already. Layouts stay the same.
    """
    if device is None:
        return module
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.fake_device, tensor.constant = device, None  # type: ignore[attr-defined]
    return module


def gru_cell(
    inputs: Tensor, state_gates: Tensor, state: Tensor, *biases: Tensor
) -> tuple[Tensor, Tensor]:
    """The shapes of torch's fused GRU cell, which torch does not define for fake tensors."""
    return torch.empty_like(state), state.new_empty(len(state), 5 * state.shape[1])


def gru_cell_backward(
    gradient: Tensor, workspace: Tensor, biased: bool
) -> tuple[Tensor | None, ...]:
    batch, size = gradient.shape
    gates = (gradient.new_empty(batch, 3 * size) for _ in range(2))
    bias = [gradient.new_empty(3 * size) if biased else None] * 2
    return (*gates, torch.empty_like(gradient), *bias)


def main(names: Sequence[str]) -> None:
    try:
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.utils import backend_registration as registration
        from torch.utils._python_dispatch import TorchDispatchMode

        class Backend(registration._DummyBackendModule):  # type: ignore[misc]
            def get_amp_supported_dtype(self) -> list[torch.dtype]:
                return [torch.bfloat16]

        registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    except (ImportError, AttributeError):
        sys.exit(2)

    class CopiesToTheHost(TorchDispatchMode):  # type: ignore[misc]
        count = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            output = function(*args, **(kwargs or {}))
            from_device = any(isinstance(x, Tensor) and x.device.type == NAME for x in args)
            self.count += from_device and isinstance(output, Tensor) and output.device.type == "cpu"
            return output

    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_thnn_fused_gru_cell", gru_cell)
    library.impl("_thnn_fused_gru_cell_backward", gru_cell_backward)
    device = torch.device(NAME, 0)
    for name in names:
        config = CONFIGS[name]
        shape, dtype, encoder = (
            ((1, 12, 12), torch.uint8, "resnet")
            if name == "images"
            else (SHAPE, torch.float32, "mlp")
        )
        spec = tiny_spec(shape, dtype=str(dtype).removeprefix("torch."))
        on_host = random_trajectory(length=4, resets=RESETS, shape=shape, dtype=dtype)
        config = replace(config, torso=tiny_torso_config(encoder), vmpo=VMPOConfig(target_period=1))
        # read on the host, before the data moves
        read = {"resets": on_host.resets, "rows_needed": on_host.rows_needed}
        with ExitStack() as stack:
            mode = stack.enter_context(
                FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
            )
            stack.enter_context(patch.object(nn.Module, "to", move))
            learner = Learner(config, spec, 0, device)
            on_device = replace(
                on_host,
                **{
                    field: mode.from_tensor(value)
                    for field, value in on_host.state().items()
                    if isinstance(value, torch.Tensor)
                },
            )
            on_device.__dict__.update(read)
            copies = stack.enter_context(CopiesToTheHost())
            metrics = [learner.update(on_device) for _ in range(2)][-1] | {
                "reward": learner.appraise(on_device)[0].reward
            }
            assert {value.device for value in metrics.values()} == {device}, {
                key: str(value.device) for key, value in metrics.items()
            }
            assert {value.device for value in learner.acting.values()} == {device}
            assert copies.count == 0, f"{copies.count} copies to the host"
            print(f"{name}: nothing on the host")
    with mode:
        try:
            metrics["loss"] + torch.ones(3)
        except RuntimeError:
            print("a tensor left on the host: refused")


if __name__ == "__main__":
    main(sys.argv[1:])

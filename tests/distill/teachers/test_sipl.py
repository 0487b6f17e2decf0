"""SIPL and its backbones against what was published: sizes, names, and what guidance does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from burnish.distill.data import Batch
from burnish.distill.macs import count_macs
from burnish.distill.teachers.registry import create
from burnish.distill.teachers.sipl import SIPL
from burnish.distill.teachers.training import PrivilegeObjective
from burnish.distill.weights import load_teacher, save_teacher
from burnish.runtime.errors import InputError

# Published parameters in millions and multiply-adds in G at 256² (teachers.md); Restormer's and NAFNet's from their papers,
# Restormer's 141 G there without attention products.
PUBLISHED = {
    "promptir": (35.59, {"plain": 172.7}),
    "adair": (28.78, {"plain": 161.7}),
    "restormer": (26.13, {}),
    "nafnet": (17.11, {"plain": 15.9}),
    "sipl-promptir": (40.03, {"plain": 191.4, "encoder features": 50.6, "privileged": 208.0}),
}
LAYOUTS = Path(__file__).parent / "layouts"


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_sizes_are_the_published_ones(name: str) -> None:
    millions, macs = PUBLISHED[name]
    with torch.device("meta"):
        teacher = create(name).eval().requires_grad_(False)
        assert round(sum(p.numel() for p in teacher.parameters()) / 1e6, 2) == millions
        with torch.no_grad():
            passes = teacher.passes(torch.zeros(1, 3, 256, 256))
            for what, billions in macs.items():
                assert count_macs(passes[what]) / 1e9 == pytest.approx(billions, rel=0.02), what


@pytest.mark.parametrize("name", ["promptir", "adair", "sipl-promptir", "sipl-adair"])
@pytest.mark.parametrize(("wrapper", "prefix"), [("state_dict", "net."), ("params_ema", ""), ("params", "")])
def test_published_layouts_load(name: str, wrapper: str, prefix: str, tmp_path: Path) -> None:
    """The layout is data beside this test, not what our classes happen to be called."""
    layout: dict[str, list[int]] = json.loads((LAYOUTS / f"{name}.json").read_text())
    with torch.device("meta"):
        content = {wrapper: {prefix + key: torch.zeros(shape) for key, shape in layout.items()}, "epoch": 3}
        teacher = create(name)
        teacher.load_published(content)


def test_a_checkpoint_of_another_backbone_is_named() -> None:
    layout: dict[str, list[int]] = json.loads((LAYOUTS / "adair.json").read_text())
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=r"looks like AdaIR.*missing, first .*unexpected, first fre1"),
    ):
        create("promptir").load_published({"state_dict": {f"net.{k}": torch.zeros(s) for k, s in layout.items()}})


@pytest.fixture(scope="module")
def teacher() -> SIPL:
    torch.manual_seed(0)
    teacher = create("sipl-promptir", "tiny")
    assert isinstance(teacher, SIPL)
    with torch.no_grad():  # a fresh one is nearly the identity, whatever guides it
        teacher.get_parameter("backbone.output.0.weight").normal_(std=0.1)
    return teacher.eval()


def test_guidance_changes_the_picture_and_the_plain_pass_ignores_it(teacher: SIPL) -> None:
    picture, better = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        plain, guided = teacher(picture), teacher(picture, teacher.backbone.encode(better))
    assert not torch.equal(plain, guided)


def test_folded_dictionaries_change_nothing_and_follow_new_weights(teacher: SIPL) -> None:
    picture = torch.rand(2, 3, 32, 32)
    unfolded = teacher(picture).detach()
    with torch.no_grad():
        torch.testing.assert_close(teacher(picture), unfolded)
        state = {name: value.clone() for name, value in teacher.state_dict().items()}
        # Not an offset, which the layer norm behind would take away again.
        changed = {n: torch.randn_like(value) if "dictionary" in n else value for n, value in state.items()}
        teacher.load_state_dict(changed)
        assert not torch.allclose(teacher(picture), unfolded)
        teacher.load_state_dict(state)
        torch.testing.assert_close(teacher(picture), unfolded)


def test_fixed_and_replaced_input_differ_from_the_second_round(teacher: SIPL, tmp_path: Path) -> None:
    picture = torch.rand(1, 3, 32, 32)
    fixed = teacher.restore(picture, 3)
    teacher.configure({"input": "replace"})
    save_teacher(teacher, "tiny", tmp_path / "t.safetensors")
    assert load_teacher(tmp_path / "t.safetensors").settings == teacher.settings
    with pytest.raises(InputError, match=r"setting input: .*'fixed' or 'replace'.*its settings: input"):
        teacher.configure({"input": "both"})
    replaced = teacher.restore(picture, 3)
    teacher.configure({"input": "fixed"})
    torch.testing.assert_close(fixed[0].picture, replaced[0].picture)
    assert not torch.allclose(fixed[1].picture, replaced[1].picture)


def test_privilege_fades_with_the_steps() -> None:
    """Equation 1: at first the truth itself, at the end the degraded picture alone."""
    torch.manual_seed(0)
    teacher = create("restormer", "tiny")
    assert not isinstance(teacher.objective(), PrivilegeObjective)
    teacher.configure({"privilege_steps": 2})  # as a recipe's `settings` do
    objective = teacher.objective()
    assert isinstance(objective, PrivilegeObjective)
    seen: list[torch.Tensor] = []
    objective.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clean, degraded = torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    for _ in range(4):
        objective(Batch.untaught(clean, degraded, torch.zeros(1, 7)))
    assert [float(x.mean()) for x in seen] == [1.0, 0.5, 0.0, 0.0]


def test_a_large_picture_never_holds_the_whole_attention() -> None:
    """At 1024² the largest site has 262144 queries and 4096 keys: 4.3 GB a head if it were whole."""
    import resource

    torch.manual_seed(0)
    site = create("sipl-promptir-s").get_submodule("cross_p3")
    published = torch.rand(1, 4096, 48)
    with torch.no_grad():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        key = published.reshape(1, 4096, 4, 12).transpose(1, 2)
        site.attn(torch.rand(1, 48, 512, 512), (key, key))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 2.0

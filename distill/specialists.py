"""Specialists: a refiner of its own for a degradation, which restores pictures that have nothing else.

What degradations share is what limits a small student. A specialist costs bytes and no time: it takes the place of the shared
refiner, and reads the same features. It is trained as any student is whose encoder is frozen, on one leaf alone.
"""

from __future__ import annotations

import torch

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from ..runtime.tree import LEAVES
from .recipe import check_known
from .student import Student
from .weights import Trained, halved, joined_provenance

PREFIX = "specialists."
# The assessing head says which refiner is asked, and none of them reads it.
UNREAD = "encoder.head."


def without_specialists(trained: Trained) -> Trained:
    """What all degradations share, to be trained: what specialists read changes with the encoder."""
    student = Student(trained.student.config.model_copy(update={"specialists": ()})).eval()
    shared = {name: value for name, value in trained.student.state_dict().items() if not name.startswith(PREFIX)}
    student.load_state_dict(shared)
    return trained._replace(student=student, routing=_with(trained.routing, ()))


def add_specialist(trained: Trained, leaf: str, source: Trained) -> Trained:
    """The student with the refiner of `source` as the specialist of `leaf`, in place of one that it has.

    Raises InputError for a leaf that nothing is degraded by here, and where the encoders differ.
    """
    student = trained.student
    try:
        check_known((leaf,), LEAVES)
    except ValueError as error:
        raise InputError(f"no specialist: {error}") from None
    own, theirs = student.encoder.state_dict(prefix="encoder."), source.student.encoder.state_dict(prefix="encoder.")
    read = [name for name in own if not name.startswith(UNREAD)]
    if any(name not in theirs or not torch.equal(halved(own[name]), halved(theirs[name])) for name in read):
        raise InputError(
            f"the specialist of {leaf} has another encoder than the student; train it from this one with frozen: [encoder]"
        )
    leaves = tuple(dict.fromkeys((*student.config.specialists, leaf)))
    grown = Student(student.config.model_copy(update={"specialists": leaves})).eval()
    refiner = source.student.refiner.state_dict(prefix=f"{PREFIX}{leaf}.")
    grown.load_state_dict(student.state_dict() | refiner)
    provenance = joined_provenance((trained, source), trained.provenance.licence)
    return Trained(grown, _with(trained.routing, leaves), provenance)


def _with(routing: Routing, specialists: tuple[str, ...]) -> Routing:
    return routing.model_copy(update={"specialists": specialists})

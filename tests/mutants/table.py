"""All mutants."""

from tests.mutants.data import DATA
from tests.mutants.evals import EVALS
from tests.mutants.exports import CONFIGS, EXPORTS
from tests.mutants.family import FAMILY
from tests.mutants.masks import MASKS
from tests.mutants.method import METHOD
from tests.mutants.models import MODELS
from tests.mutants.objectives import OBJECTIVES
from tests.mutants.planning import PLANNING
from tests.mutants.questions import QUESTIONS
from tests.mutants.runs import RUNS
from tests.mutants.slots import SLOTS
from tests.mutants.states import CAUSAL
from tests.mutants.world import WORLD

MUTANTS = (
    *(*METHOD, *OBJECTIVES, *MODELS, *MASKS, *DATA, *EVALS, *QUESTIONS, *PLANNING, *RUNS, *EXPORTS, *CONFIGS),
    *WORLD,
    *SLOTS,
    *FAMILY,
    *CAUSAL,
)

"""The certificate: nothing passes by default, and what is read back is judged anew."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.evidence.certificate import (
    Certificate,
    Claim,
    DecodingComparison,
    ErrorFigure,
    Fork,
    MeasuredRun,
    Party,
    TensorComparison,
)

ALGEBRA = ErrorFigure(output="logits", worst="logits", error=1e-15, bound=1e-9, values=10)
DEPLOYED = ErrorFigure(output="logits", worst="logits", error=2e-7, bound=4e-7, floor=1e-7, values=10)
FORK = Fork(prompt="texts", row=1, step=2, gap=0.1, floor=0.2, tie=True)
RUN = MeasuredRun(
    where="sdpa",
    algebra=(ALGEBRA,),
    deployed=(DEPLOYED,),
    decoding=DecodingComparison(sequences=2, tokens=9, forks=(FORK,)),
)
CLAIM = Claim(flag="logits", claimed=True, error=1e-15, how="run")
GOOD = Certificate(
    mode="whole",
    variant=Party(name="v", sha256={"model.safetensors": "0"}),
    source=Party(name="s", sha256={"model.safetensors": "1"}),
    dtype="F32",
    seed=0,
    probes=("random ids",),
    tolerance_from="measured",
    lossy=False,
    runs=(RUN,),
    equal=(CLAIM,),
    tensors=TensorComparison(compared=3, identical=2, planned=1, exact=1),
    versions={"torch": "2"},
)


def but(**changes: Any) -> Certificate:
    """The good certificate with other evidence."""
    return GOOD.model_copy(update=changes)


def run(**changes: Any) -> tuple[MeasuredRun, ...]:
    return (RUN.model_copy(update=changes),)


def deployed(**changes: Any) -> dict[str, Any]:
    return {"runs": run(deployed=(DEPLOYED.model_copy(update=changes),))}


def test_the_good_one_passes() -> None:
    assert GOOD.passed and GOOD.reasons == () and GOOD.comparisons == 10
    assert GOOD.algebra == ALGEBRA and GOOD.deployed == DEPLOYED


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "lossy": ({"lossy": True}, "on purpose"),
    "no runs": ({"runs": ()}, "Nothing was compared"),
    "no figures": ({"runs": run(deployed=())}, "Nothing was compared"),
    "one run without figures": ({"runs": (RUN, *run(deployed=()))}, "Nothing was compared"),
    "no values": (deployed(values=0), "Nothing was compared"),
    "no counterpart": ({"runs": (RUN, *run(algebra=(ALGEBRA.model_copy(update={"values": 0}),)))}, "counterpart"),
    "no algebra": ({"runs": run(algebra=())}, "float64 figure is missing"),
    "algebra": ({"runs": run(algebra=(ALGEBRA.model_copy(update={"error": 1e-8}),))}, "does not keep the function"),
    "algebra NaN": ({"runs": run(algebra=(ALGEBRA.model_copy(update={"error": math.nan}),))}, "does not keep"),
    "too far": (deployed(error=5e-7), "above 4e-07, noise floor 1e-07"),
    "too near to tell in two figures": (deployed(error=4.04e-7), "the deployed error 4.04e-07 is above 4e-07"),
    "NaN": (deployed(error=math.nan), "the deployed error nan"),
    "infinite": (deployed(error=math.inf), "NaN or infinite values"),
    "floor NaN": (deployed(bound=math.nan, floor=math.nan), "no noise floor"),
    "floor infinite": (deployed(bound=math.inf, floor=math.inf), "no noise floor"),
    "nothing decoded": ({"runs": run(decoding=DecodingComparison(sequences=0, tokens=0))}, "no sequence"),
    "another token": (
        {
            "runs": run(
                decoding=DecodingComparison(sequences=2, tokens=9, forks=(FORK.model_copy(update={"tie": False}),))
            )
        },
        "row 1: token 3 differs",
    ),
    "claim": ({"equal": (CLAIM.model_copy(update={"error": 0.5}),)}, "but they differ by 0.5, which is above 1e-09"),
    "claim NaN": ({"equal": (CLAIM.model_copy(update={"error": math.nan}),)}, "but they differ"),
    "file": ({"tensors": TensorComparison(compared=3, identical=2, wrong=("w: off",))}, "w: off"),
    "load report": ({"load_report": ("missing w",)}, "missing w"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_evidence_fails_with_its_reason(case: str) -> None:
    changes, reason = BAD[case]
    certificate = but(**changes)
    assert not certificate.passed
    assert any(reason in text for text in certificate.reasons), certificate.reasons
    assert all(text.endswith(".") for text in certificate.reasons)
    again = Certificate.loads(certificate.dumps())
    assert again.reasons == certificate.reasons


def test_without_a_plan_the_deployed_figure_decides() -> None:
    assert but(runs=run(algebra=()), no_algebra="There is no plan.", equal=()).passed
    assert not but(runs=run(algebra=()), no_algebra="There is no plan.", equal=(), **{"lossy": True}).passed


def test_what_is_not_claimed_or_not_measured_fails_nothing() -> None:
    unclaimed = Claim(flag="lora", claimed=False, error=0.5, how="run")
    unmeasured = Claim(flag="kv_cache", claimed=True, how="the model gives none out")
    assert unclaimed.held is False and unmeasured.held is None
    assert but(equal=(unclaimed, unmeasured)).passed


def test_json() -> None:
    assert Certificate.loads(GOOD.dumps()) == GOOD
    plain = json.loads(GOOD.dumps())
    assert plain["passed"] is True and plain["reasons"] == [] and plain["comparisons"] == 10
    assert plain["algebra"]["error"] == 1e-15 and plain["deployed"]["floor"] == 1e-7
    assert plain["equal"][0]["held"] is True
    json.loads(but(**deployed(error=math.nan)).dumps(), parse_constant=pytest.fail)


def test_older_files_are_read() -> None:
    """They had `measured` for `held`, which read as if a claim with a measured error had none."""
    plain = json.loads(GOOD.dumps())
    plain["equal"][0]["measured"] = plain["equal"][0].pop("held")
    assert Certificate.loads(json.dumps(plain)) == GOOD
    assert "measured" not in json.loads(GOOD.dumps())["equal"][0]


def test_a_verdict_written_into_the_json_is_not_believed() -> None:
    plain = json.loads(but(**deployed(error=1.0)).dumps())
    plain |= {"passed": True, "reasons": []}
    assert not Certificate.loads(json.dumps(plain)).passed


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}'])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"here\.json cannot be read as a certificate"):
        Certificate.loads(text, "here.json")


def test_the_worst_figure_is_shown() -> None:
    worse = DEPLOYED.model_copy(update={"output": "start_logits", "error": 3e-7})
    assert but(runs=(RUN, *run(deployed=(worse, DEPLOYED)))).deployed == worse
